"""How many flows a session may have, and which of them makes room for one more."""

import packets as p
import pytest
from collisions import flow_hash_of, ports_of

from datapath import (
    GENERATION,
    OTHER_SESSION,
    OTHER_SLOT,
    PLACES,
    SESSION,
    SESSION_FLOWS,
    SLOT,
    XDP_PASS,
    Datapath,
)

REQUEST = {"received": 1, "steered__stun_request": 1}
LEARNED = REQUEST | {"flow__learned": 1}
CAPPED = LEARNED | {"flow__capped": 1}
OVER_CAP = REQUEST | {"flow__over_cap": 1}
CHECK, OTHER_CHECK = p.check("srvr:c"), p.check("other:c")
PORTS = range(1, 1 + SESSION_FLOWS)
NEW = 100


@pytest.fixture
def edge(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr", SESSION, SLOT)
    datapath.add_session("other", OTHER_SESSION, OTHER_SLOT)
    return datapath


def ask(edge: Datapath, port: int, payload: bytes = CHECK) -> dict[str, int]:
    return edge.receive(bytes(p.ip4(payload, sport=port))).counted


def learn(edge: Datapath, count: int = SESSION_FLOWS) -> None:
    for port in range(1, 1 + count):
        assert ask(edge, port) == LEARNED


def here(edge: Datapath, *ports: int) -> list[int]:
    """Which of the ports have a flow."""
    return [port for port in ports if edge.flow(port=port)]


def claims(edge: Datapath, ufrag: str = "srvr") -> list[int]:
    """The places that a session's entry names."""
    return [claim - 1 for claim in edge.session(ufrag)["flows"] if claim]


def place_of(edge: Datapath, port: int) -> int:
    flow = edge.flow(port=port)
    assert flow is not None
    place: int = flow["place"]
    return place


@pytest.mark.parametrize("cap", [1, 2, SESSION_FLOWS, 16])
def test_living_flow_makes_no_room_for_one_over_the_cap(edge: Datapath, cap: int) -> None:
    edge.set(session_flows=cap)
    learn(edge, cap)
    edge.pass_ticks(5)

    outcome = edge.receive(bytes(p.ip4(CHECK, sport=NEW)))

    assert (outcome.verdict, outcome.counted) == (XDP_PASS, OVER_CAP)
    assert outcome.frame == p.to_lane(p.ip4(CHECK, sport=NEW))
    assert here(edge, *range(1, 1 + cap), NEW) == [*range(1, 1 + cap)]
    assert claims(edge) == [place_of(edge, port) for port in range(1, 1 + cap)]


@pytest.mark.parametrize("silent", PORTS)
@pytest.mark.parametrize("ticks", [6, 100])
def test_silent_flow_makes_room_and_no_other(edge: Datapath, silent: int, ticks: int) -> None:
    learn(edge)
    edge.pass_ticks(ticks)
    for port in PORTS:
        if port != silent:
            assert ask(edge, port, p.RTP) == {"received": 1, "steered__rtp": 1}

    assert ask(edge, NEW) == CAPPED

    assert here(edge, *PORTS, NEW) == [*(port for port in PORTS if port != silent), NEW]
    assert sorted(claims(edge)) == sorted(place_of(edge, port) for port in here(edge, *PORTS, NEW))


def test_longest_silent_flow_makes_room(edge: Datapath) -> None:
    learn(edge)
    for port in (1, 2, 4, 5, 6, 7, 8):
        edge.pass_ticks(3)
        ask(edge, port, p.RTP)

    # 3 has been silent for 21 ticks, 1 for 18, 2 for 15, 4 for 12, 5 for 9, 6 for 6.
    for made, gone in enumerate((3, 1, 2, 4, 5, 6)):
        assert ask(edge, NEW + made) == CAPPED
        assert not here(edge, gone)
    assert ask(edge, NEW + 6) == OVER_CAP


def test_of_flows_alike_the_first_one_makes_room(edge: Datapath) -> None:
    learn(edge)
    edge.pass_ticks(6)
    ask(edge, NEW)
    assert not here(edge, 1)
    assert len(here(edge, *PORTS)) == SESSION_FLOWS - 1


def test_cap_is_of_each_session(edge: Datapath) -> None:
    learn(edge)
    for port in range(NEW, NEW + SESSION_FLOWS):
        assert ask(edge, port, OTHER_CHECK) == LEARNED
    assert edge.flows() == 2 * SESSION_FLOWS


def test_tuple_of_another_is_not_taken_over_by_one_over_the_cap(edge: Datapath) -> None:
    ask(edge, NEW, OTHER_CHECK)
    learn(edge)

    assert ask(edge, NEW) == OVER_CAP

    flow = edge.flow(port=NEW)
    assert flow is not None
    assert flow["session_id"] == OTHER_SESSION


def test_claim_of_a_swept_flow_is_free_again(edge: Datapath) -> None:
    learn(edge)
    edge.pass_ticks(112)
    for port in PORTS[1:]:
        ask(edge, port, p.RTP)
    assert edge.sweep() == {"swept__idle": 1}

    assert ask(edge, NEW) == LEARNED

    assert ask(edge, NEW + 1) == OVER_CAP


def test_claim_of_a_moved_flow_is_free_again(edge: Datapath) -> None:
    learn(edge)
    assert ask(edge, 3, OTHER_CHECK) == REQUEST | {"flow__moved": 1}

    assert ask(edge, NEW) == LEARNED

    assert here(edge, 3) == [3]  # it is the other session's, and stays
    assert ask(edge, NEW + 1) == OVER_CAP


def test_claim_of_an_evicted_flow_is_free_again(edge: Datapath) -> None:
    own, *others, new = ports_of(edge, (3, 17), 2 * PLACES + 1)
    assert ask(edge, own) == LEARNED
    learn(edge, SESSION_FLOWS - 1)
    edge.pass_ticks(28)
    for port in PORTS[:-1]:
        ask(edge, port, p.RTP)
    places = edge.table.places(flow_hash_of(own))
    empty = [place for place in places if not edge.entry(place)]
    for port, _ in zip(others, empty, strict=False):
        edge.add_flow(port=port, slot=OTHER_SLOT)
    assert ask(edge, new, OTHER_CHECK) == LEARNED | {"flow__evicted": 1}
    assert not here(edge, own)

    assert ask(edge, NEW) == LEARNED

    assert ask(edge, NEW + 1) == OVER_CAP


def test_session_that_has_a_used_ufrag_begins_without_flows(edge: Datapath) -> None:
    """The claims of the one before are not its own, and its flows not counted against it."""
    learn(edge)
    before = edge.session("srvr")
    edge.maps.sessions.update(edge.session_key("srvr"), before | {"session_id": 0x3333})

    for port in range(NEW, NEW + SESSION_FLOWS):
        assert ask(edge, port) == LEARNED
    assert ask(edge, 1) == OVER_CAP


def test_flow_that_comes_back_to_its_place_is_claimed_once(edge: Datapath) -> None:
    """Claims that are out of date may name the place of a new flow."""
    learn(edge)
    for _ in range(3):
        assert ask(edge, 4, OTHER_CHECK)["steered__stun_request"]
        assert ask(edge, 4)["steered__stun_request"]

    assert sorted(claims(edge)) == sorted(place_of(edge, port) for port in PORTS)


@pytest.mark.parametrize("living", [1, SESSION_FLOWS])
def test_replays_from_anywhere_never_push_a_living_flow_out(edge: Datapath, living: int) -> None:
    """Integrity does not cover the address: a captured check is genuine from everywhere."""
    learn(edge, living)
    for _ in range(20):
        edge.pass_ticks(1)
        for port in range(1, 1 + living):
            assert ask(edge, port, p.RTP) == {"received": 1, "steered__rtp": 1}
        for host in range(1, 21):
            edge.receive(bytes(p.ip4(CHECK, source=f"203.0.113.{host}", sport=host)))
        for port in range(1, 1 + living):
            assert ask(edge, port) == REQUEST

    assert edge.flows() <= SESSION_FLOWS


def test_ice_restart_takes_the_flow_to_the_claims_of_the_new_ufrag(edge: Datapath) -> None:
    learn(edge)
    edge.add_session("newufrag", SESSION, SLOT)

    assert ask(edge, 5, p.check("newufrag:c")) == REQUEST

    assert claims(edge, "newufrag") == [place_of(edge, 5)]
    assert ask(edge, NEW) == LEARNED  # the old ufrag has a claim to give away
    assert here(edge, *PORTS) == [*PORTS]
    # And when the old ufrag is gone, what is of the new one stays.
    edge.maps.sessions.delete(edge.session_key("srvr"))
    assert edge.sweep() == {"swept__ended": SESSION_FLOWS}
    assert here(edge, *PORTS, NEW) == [5]


def test_flow_of_an_ice_restart_stays_whole_where_the_claims_are_taken(edge: Datapath) -> None:
    """It stays with the ufrag that has a claim for it."""
    edge.set(session_flows=2)
    learn(edge, 2)
    edge.add_session("newufrag", SESSION, SLOT)
    for port in (NEW, NEW + 1):
        ask(edge, port, p.check("newufrag:c"))

    assert ask(edge, 1, p.check("newufrag:c")) == REQUEST | {"flow__over_cap": 1}

    flow = edge.flow(port=1)
    assert flow is not None
    assert flow["ufrag_hash"] != edge.session_key("newufrag")
    assert len(claims(edge, "newufrag")) == 2
    assert here(edge, 1, 2, NEW, NEW + 1) == [1, 2, NEW, NEW + 1]


def test_hand_off_to_another_owner_takes_the_flow_along(edge: Datapath) -> None:
    """The session's entry names its new owner; the flow follows with the session's next check."""
    learn(edge, 1)
    edge.send(bytes(p.from_lane(p.RTP, dport=1)))
    handed = edge.session("srvr") | {"owner": {"slot": OTHER_SLOT, "generation": GENERATION}}
    edge.maps.sessions.update(edge.session_key("srvr"), handed)

    assert ask(edge, 1) == REQUEST

    flow = edge.flow(port=1)
    assert flow is not None
    assert (flow["owner"]["slot"], flow["proven"]) == (OTHER_SLOT, True)
    media = p.ip4(p.RTP, sport=1)
    assert edge.receive(bytes(media)).frame == p.to_lane(media, p.OTHER_LANE)
