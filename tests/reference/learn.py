"""What a request does to the flow table. Steering one packet is not owning a tuple.

Only a request made with its session's password creates a flow or moves one, and a flow that is
another living session's stays: or any client with a session of its own could take over a call by
forging its address. Called by edge.py when the owner is found and alive.
"""

from reference import stun
from reference.packet import EndError, map_ipv4
from reference.state import Session, State
from reference.table import MOVABLE_TICKS, Flow, FlowKey, hash_flow


def learn(state: State, key: FlowKey, ufrag_hash: int, session: Session, message: bytes) -> None:
    """Do what the request of a session asks for; EndError if it is not genuine."""
    found = state.find_flow(key)
    own = found if found and found[1].key == key else None
    if own and _is_settled(state, *own, ufrag_hash, session):
        state.meter(key)
        if own[1].session == session.id:
            _follow(state, own[1], session)
        return
    _verify(state, key, session, message)
    how = _contest(state, *own, session) if own else "flow__learned"
    claim = _choose_claim(state, ufrag_hash, session)
    if how != "flow__contested" and claim is None:
        how = "flow__over_cap"
    elif found and not own:
        how = "flow__refused"  # two tuples with one tag
    if claim is None or how in ("flow__contested", "flow__over_cap", "flow__refused"):
        state.counted[how] += 1
        return
    if own and own[1].session == session.id:  # an ICE restart
        place, flow = own
        _follow(state, flow, session)
        flow.ufrag_hash = ufrag_hash
        _take_claim(state, session, claim, place, flow)
        return
    displaced = 0
    if own and how == "flow__moved" and own[1].proven and not state.is_ended(own[1]):
        displaced = own[1].session & 0xFFFFFFFF
    own = own or state.insert_flow(key, session.owner)
    if own is None:
        return
    state.counted[how] += 1
    place, flow = own
    flow.owner, flow.age, flow.proven = session.owner, state.tick & 0xFF, False
    flow.session, flow.ufrag_hash, flow.displaced = session.id, ufrag_hash, displaced
    _take_claim(state, session, claim, place, flow)


def _follow(state: State, flow: Flow, session: Session) -> None:
    """Take a sign of life from its own session, which may have another owner by now."""
    flow.age, flow.owner = state.tick & 0xFF, session.owner


def _is_settled(state: State, place: int, flow: Flow, ufrag_hash: int, session: Session) -> bool:
    """The request can change nothing: it need not be verified.

    It is of its ufrag's own flow, or of one healed for its owner: which is nobody's to claim
    while it lives, or a neighbour on the same owner could name it his own and end it with his.
    """
    healed = flow.session == 0 and flow.owner == session.owner
    lost = healed and _contest(state, place, flow, session) == "flow__contested"
    return lost or (flow.session, flow.ufrag_hash) == (session.id, ufrag_hash)


def _contest(state: State, place: int, flow: Flow, session: Session) -> str:
    """Return what becomes of a tuple when a request of another session comes from it.

    Nothing if it is its own. Only a flow that is known to reach a client is protected, and only
    while the client is heard.
    """
    if flow.session == session.id:
        return ""
    if state.is_ended(flow):
        return "flow__moved"
    if flow.displaced and flow.displaced == session.id & 0xFFFFFFFF:
        return "flow__reclaimed"  # it had lost the tuple for its silence, and is back
    if not flow.proven or state.table.silence(place, state.tick) >= MOVABLE_TICKS:
        return "flow__moved"
    return "flow__contested"


def _choose_claim(state: State, ufrag_hash: int, session: Session) -> int | None:
    """Return which of the session's claims one more flow gets; None: all are of living flows.

    The first that is free or out of date, else that of the flow longest silent, if it may lose it.
    """
    silences = []
    for i, place in enumerate(session.flows[: state.settings.session_flows]):
        flow = None if place is None else state.table.flows.get(place)
        if place is None or flow is None or not _is_of(flow, ufrag_hash, session):
            return i
        silences.append(state.table.silence(place, state.tick))
    longest = max(silences)
    return silences.index(longest) if longest >= MOVABLE_TICKS else None


def _take_claim(state: State, session: Session, claim: int, place: int, flow: Flow) -> None:
    """Write down that a session has a flow; the one that had the claim goes."""
    old = session.flows[claim]
    other = None if old is None or old == place else state.table.flows.get(old)
    if old is not None and other and _is_of(other, flow.ufrag_hash, session):
        state.table.remove(old)
        state.counted["flow__capped"] += 1
    # One that was out of date may name the place that the flow has now.
    session.flows = [None if one == place else one for one in session.flows]
    session.flows[claim] = place


def _is_of(flow: Flow, ufrag_hash: int, session: Session) -> bool:
    return (flow.ufrag_hash, flow.session) == (ufrag_hash, session.id)


def _verify(state: State, key: FlowKey, session: Session, message: bytes) -> None:
    """EndError unless the message was made with the password, and there is budget to see that."""
    if len(message) > stun.MESSAGE_MAX:
        raise EndError("drop__stun_too_long")
    if session.check_tick != state.tick:
        session.check_tick, session.checks, session.failures = state.tick, 0, 0
    prefix = hash_flow(state.settings.flow_keys, FlowKey(_prefix(key.client), 0, 0))
    failed = state.prefix_meters.count(prefix, state.tick)
    if session.failures and failed >= state.settings.prefix_failures:
        raise EndError("drop__failed_checks")
    if session.checks >= state.settings.check_budget:
        raise EndError("drop__verify_budget")
    session.checks += 1
    if not stun.is_genuine(message, session.password):
        session.failures += 1
        state.prefix_meters.charge(prefix, state.tick)
        raise EndError("drop__bad_integrity")


def _prefix(client: bytes) -> bytes:
    """Return the network that failed checks are charged to: IPv4 /24, IPv6 /48."""
    is_ipv4 = client.startswith(map_ipv4(b""))
    return client[:15] + b"\0" if is_ipv4 else client[:6] + bytes(10)
