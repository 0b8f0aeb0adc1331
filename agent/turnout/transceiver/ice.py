"""The ICE-lite agent of one session (RFC 8445 section 2.5), which also probes.

A client's authenticated check makes a flow; a Binding request of our own, answered by the client,
proves it; the client's nomination selects it. Media and DTLS go to the selected flow only.
Integrity covers neither address nor time: a check that was captured can be sent again, from
anywhere, for as long as its ufrag is in use. So a check alone proves nothing and is no sign of
life; only the answer to a probe, whose transaction id nobody can guess, is.
Sans-IO: called by session.py, sends through `Outside.transmit` and probing.py.
"""

from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

from turnout.errors import WireError
from turnout.transceiver.credentials import Credentials
from turnout.transceiver.flow import NEVER, Address, Flow
from turnout.transceiver.moving import NotMovable, State
from turnout.transceiver.outside import Outside
from turnout.transceiver.probing import Prober
from turnout.wire.stun import (
    BINDING_SUCCESS,
    ROLE_CONFLICT,
    StunDatagram,
    build_binding_error,
    build_binding_success,
    open_stun,
)

if TYPE_CHECKING:
    from turnout.transceiver.session import Session

FLOWS_MAX = 8
SILENCE_SECONDS = 5.0
# The same for a selected flow while the client's media comes in by another proven one.
ELSEWHERE_SECONDS = 2.0
# A flow that stays unproven is probed again at its next check, but not more often than this.
PROBE_PAUSE_SECONDS = 3.0
# A proof older than this does not count for a nomination: the address may be another's by now.
PROOF_SECONDS = 5.0

# What a hand-off carries of an agent's flows, beside their addresses.
_ROLES = ("selected", "_nominated", "_followed")
_MOVING = (
    *("ufrag", "received_at", "alive_at", "media_at", "proven_at"),
    *("bytes_in", "bytes_out", "probe_started"),
)


class IceAgent:
    """Flows of one session and which of them is selected."""

    def __init__(self, session: "Session", credentials: Credentials, outside: Outside) -> None:
        self._session = session
        self._outside = outside
        self._prober = Prober(outside)
        # By local ufrag, the current one first: while a restart goes on there are two.
        self.credentials = {credentials.local_ufrag: credentials}
        self._current = credentials
        self._restarting: Credentials | None = None
        self.flows: dict[tuple[int, Address], Flow] = {}
        self.selected: Flow | None = None
        self._nominated: Flow | None = None  # waits for its proof
        self._followed: Flow | None = None  # the same, for want of a nomination

    @property
    def newest(self) -> Credentials:
        """The credentials of the restart that goes on, else the current ones."""
        return self._restarting or self._current

    @property
    def is_restarting(self) -> bool:
        """A restart was begun and the client has not been selected under its credentials."""
        return self._restarting is not None

    def restart(self, credentials: Credentials) -> str | None:
        """Begin an ICE restart (RFC 8445 section 9): from now on both ufrags are honoured.

        Flows and selection stay as they are until the client is selected under the new one, so a
        restart that comes to nothing costs nothing. Returns our ufrag of an earlier restart that
        came to nothing; that one is honoured no more.
        """
        abandoned = self._restarting
        if abandoned is not None:
            del self.credentials[abandoned.local_ufrag]
        self.credentials[credentials.local_ufrag] = credentials
        self._restarting = credentials
        return None if abandoned is None else abandoned.local_ufrag

    def _finish_restart(self) -> None:
        """Retire the old credentials once the selected flow was checked under the new ones.

        Not at the first check: media goes on with the old pair until another is nominated, and
        without its ufrag the kernel would steer that pair no more.
        """
        new = self._restarting
        if new is None or self.selected is None or self.selected.ufrag != new.local_ufrag:
            return
        retired = self._current.local_ufrag
        del self.credentials[retired]
        self._current, self._restarting = new, None
        self._outside.ice_restarted(self._session, retired)

    def receive_request(
        self, request: StunDatagram, ufrag: str, vip: int, address: Address, now: float
    ) -> bool:
        """Take a check that names one of our ufrags; False if it is not authentic or refused.

        Raises WireError if it does not parse. An unauthentic one is not answered: an answer would
        make us talk to whoever forges an address.
        """
        credentials = self.credentials[ufrag]
        message = open_stun(request)
        if not message.check_message_integrity(credentials.local_pwd.encode()):
            self._outside.counters.drop__bad_integrity += 1
            return False
        flow = self.flows.get((vip, address)) or Flow(self._session, vip, address, now)
        flow.bytes_in += len(request.data)
        if "ICE-CONTROLLED" in message.attributes:
            # We are lite, so never controlling: the client has to change (section 7.3.1.1).
            self._outside.counters.drop__role_conflict += 1
            refusal = build_binding_error(
                request.transaction_id, ROLE_CONFLICT, credentials.local_pwd
            )
            flow.bytes_out += len(refusal)
            self._outside.transmit(flow, refusal)
            return False

        if (vip, address) not in self.flows:
            self._add_flow(flow)
        flow.received_at = now
        flow.ufrag = ufrag
        if "USE-CANDIDATE" in message.attributes:
            self._nominate(flow, now)
        success = build_binding_success(
            request.transaction_id, (address[0], address[1]), credentials.local_pwd
        )
        # Its bytes are spoken for before the probe's, which may have to wait.
        flow.bytes_out += len(success)
        # The probe leaves before the response: the client answers it before it starts DTLS, so
        # that the proof is here when the ClientHello comes.
        self._seek_proof(flow, now)
        self._outside.transmit(flow, success)
        self._outside.counters.handled__stun_request += 1
        self._finish_restart()
        return True

    def receive_unproven(self, size: int, flow: Flow, now: float) -> None:
        """Note that `size` bytes of anything but a check came by a flow that is not proven."""
        flow.bytes_in += size
        self._seek_proof(flow, now)

    def _seek_proof(self, flow: Flow, now: float) -> None:
        """Probe the flow if its proof is missing or stale, but not without a pause."""
        if flow.probe_is_held:
            self._continue_probe(flow, now)
            return
        # A silent client may live at a flow that is not selected; the selected one's turn comes in
        # `poll`.
        is_silent = flow is not self.selected and (
            now - max(flow.alive_at, self._session.alive_at) >= SILENCE_SECONDS
        )
        wants_proof = not flow.is_proven or flow is self._nominated or is_silent
        if wants_proof and now - flow.probe_started >= PROBE_PAUSE_SECONDS:
            self._start_probe(flow, now)

    def _add_flow(self, flow: Flow) -> None:
        if len(self.flows) >= FLOWS_MAX:
            # Unproven ones first: anybody can make them by sending a check again.
            self.forget(
                min(
                    (known for known in self.flows.values() if known is not self.selected),
                    key=lambda known: (known.is_proven, max(known.received_at, known.alive_at)),
                )
            )
        self.flows[flow.vip, flow.address] = flow
        self._outside.add_flow(flow)

    def knows(self, flow: Flow) -> bool:
        """Tell whether the flow has not been forgotten."""
        return self.flows.get((flow.vip, flow.address)) is flow

    def forget(self, flow: Flow) -> None:
        """Take back a flow: it is the longest unused, or another session has proven it its own."""
        self._prober.stop(flow)
        del self.flows[flow.vip, flow.address]
        if flow is self.selected:
            self.selected = None
        if flow is self._nominated:
            self._nominated = None
        if flow is self._followed:
            self._followed = None
        self._outside.drop_flow(flow)

    def _nominate(self, flow: Flow, now: float) -> None:
        # The latest nomination counts: libwebrtc moves by nominating again.
        if flow is self.selected:
            self._nominated = None
        elif now - flow.proven_at <= PROOF_SECONDS:
            self._select(flow)
        else:
            self._nominated = flow

    def _select(self, flow: Flow) -> None:
        self.selected = flow
        self._nominated = self._followed = None

    def receive_response(self, response: StunDatagram, flow: Flow, now: float) -> bool:
        """Take what answers a probe; False if it proves nothing. Raises WireError."""
        message = open_stun(response)
        if not message.check_message_integrity(flow.probe_pwd):
            self._outside.counters.drop__bad_integrity += 1
            return False
        if response.kind != BINDING_SUCCESS:
            self._outside.counters.drop__stun_unsolicited += 1
            return False
        self._prober.stop(flow)
        self._outside.counters.probes_answered += 1
        self._outside.counters.handled__stun_response += 1
        flow.proven_at = flow.alive_at = now
        self._outside.claim_flow(flow)
        # The first proven pair carries DTLS before its nomination; later ones need both.
        if self.selected is None or flow in (self._nominated, self._followed):
            self._select(flow)
        elif flow is self.selected:
            self._followed = None
        self._finish_restart()
        return True

    def _start_probe(self, flow: Flow, now: float) -> None:
        # A flow of a retired generation is the client's all the same.
        self._prober.start(flow, self.credentials.get(flow.ufrag, self._current), now)

    def _continue_probe(self, flow: Flow, now: float) -> None:
        if not self._prober.go_on(flow, now) and flow is self.selected:
            self._follow_media(flow, now)

    def _follow_media(self, silent: Flow, now: float) -> None:
        """Go where the client's media comes from: the selected flow does not answer any more.

        A client whose NAT gave it another address may never nominate again. As with a nomination,
        the other flow must have proven lately that the client is there.
        """
        heard = self._heard_elsewhere(silent)
        if heard is None:
            return
        self._outside.counters.followed_media += 1
        if now - heard.proven_at <= PROOF_SECONDS:
            self._select(heard)
            return
        self._followed = heard
        if not heard.is_probing:
            self._start_probe(heard, now)

    def _heard_elsewhere(self, selected: Flow) -> Flow | None:
        """Return the proven flow that brought media since the selected one gave a sign of life."""
        others = (
            flow
            for flow in self.flows.values()
            if flow is not selected and flow.is_proven and flow.media_at > selected.alive_at
        )
        return max(others, key=lambda flow: flow.media_at, default=None)

    def poll(self, now: float) -> float:
        """Do what is due and return when to be called next (monotonic seconds)."""
        for flow in self.flows.values():
            if flow.probe_next <= now:
                self._continue_probe(flow, now)
        due = min((flow.probe_next for flow in self.flows.values()), default=NEVER)
        selected = self.selected
        if selected is None or selected.is_probing:
            return due
        patience = ELSEWHERE_SECONDS if self._heard_elsewhere(selected) else SILENCE_SECONDS
        silent_until = max(selected.alive_at, selected.probe_started) + patience
        if silent_until <= now:
            self._start_probe(selected, now)
            return min(due, selected.probe_next)
        return min(due, silent_until)

    def check_movable(self) -> None:
        """Raise NotMovable while a restart goes on or nothing is selected."""
        if self._restarting is not None:
            raise NotMovable("an ICE restart is going on")
        if self.selected is None:
            raise NotMovable("no way to its client is selected")

    def leave(self, vip_of: Callable[[int], str]) -> State:
        """Stop and return credentials and flows. `vip_of`: the VIP of a flow's number.

        A probe that is on its way is not waited for: the next owner sends another.
        """
        state: State = {
            "tie_breaker": self._prober.tie_breaker,
            "credentials": astuple(self._current),
            "flows": [
                {
                    "vip": vip_of(flow.vip),
                    "address": flow.address,
                    "is_probing": flow.is_probing,
                    "roles": [role for role in _ROLES if getattr(self, role) is flow],
                    **{name: getattr(flow, name) for name in _MOVING},
                }
                for flow in self.flows.values()
            ],
        }
        self.close()
        return state

    def resume(self, state: State, number_of: Callable[[str], int | None], now: float) -> None:
        """Go on with what another process left; its VIPs that we do not have are left out."""
        self._prober.tie_breaker = state["tie_breaker"]
        for known in state["flows"]:
            vip = number_of(known["vip"])
            if vip is None:
                continue
            flow = Flow(self._session, vip, tuple(known["address"]), now)
            for name in _MOVING:
                setattr(flow, name, known[name])
            self.flows[vip, flow.address] = flow
            for role in _ROLES:
                if role in known["roles"]:
                    setattr(self, role, flow)
            if flow.is_proven:
                self._outside.claim_flow(flow)
            else:
                self._outside.add_flow(flow)
            if known["is_probing"] and self.knows(flow):
                self._start_probe(flow, now)
        if self.selected is None:
            raise WireError("the selected way is another client's, or its VIP is not served here")

    def doubt(self, now: float) -> None:
        """Ask the client at the selected flow whether it is still there."""
        if self.selected is not None and not self.selected.is_probing:
            self._start_probe(self.selected, now)

    def close(self) -> None:
        """Forget every flow, every probe on its way, and the session, which has ended.

        Nothing is left that refers to who refers to it: an ended session is freed at once, and not
        when the collector finds it.
        """
        for flow in list(self.flows.values()):
            self.forget(flow)
        del self._session
