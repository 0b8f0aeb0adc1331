"""Steering one packet is not owning a tuple: what a request does to the flow table."""

import packets as p
import pytest

from datapath import (
    DOWN,
    DRAINING,
    GENERATION,
    OTHER_SESSION,
    OTHER_SLOT,
    SESSION,
    SESSION_FLOWS,
    SLOT,
    XDP_DROP,
    Datapath,
)

REQUEST = {"received": 1, "steered__stun_request": 1}
CHECK, OTHER_CHECK = p.ip4(p.check("srvr:c")), p.ip4(p.check("other:c"))


@pytest.fixture
def two_sessions(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr", SESSION, SLOT)
    datapath.add_session("other", OTHER_SESSION, OTHER_SLOT)
    return datapath


def owner_of(datapath: Datapath) -> tuple[int, int]:
    flow = datapath.flow()
    assert flow is not None
    return flow["session_id"], flow["owner"]["slot"]


def test_request_from_new_tuple_makes_the_flow(two_sessions: Datapath) -> None:
    outcome = two_sessions.receive(bytes(CHECK))
    assert outcome.counted == REQUEST | {"flow__learned": 1}
    assert owner_of(two_sessions) == (SESSION, SLOT)


def test_second_request_of_the_session_changes_nothing(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    assert two_sessions.receive(bytes(CHECK)).counted == REQUEST


def test_only_requests_learn(two_sessions: Datapath) -> None:
    for payload in (p.RTP, p.DTLS_HANDSHAKE, p.stun(p.BINDING_SUCCESS), p.stun(1)):
        two_sessions.receive(bytes(p.ip4(payload)))
    assert two_sessions.flow() is None


def test_request_on_a_living_sessions_tuple_is_delivered_and_contested(
    two_sessions: Datapath,
) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.send(bytes(p.from_lane(p.RTP)))

    outcome = two_sessions.receive(bytes(OTHER_CHECK))

    assert outcome.counted == REQUEST | {"flow__contested": 1}
    assert outcome.frame == p.to_lane(OTHER_CHECK, p.OTHER_LANE)  # to its own owner
    assert owner_of(two_sessions) == (SESSION, SLOT)
    media = p.ip4(p.RTP)
    assert two_sessions.receive(bytes(media)).frame == p.to_lane(media, p.LANE)


def test_tuple_of_an_ended_session_moves_at_once(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.maps.sessions.delete(two_sessions.add_session("srvr"))

    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__moved": 1}
    assert owner_of(two_sessions) == (OTHER_SESSION, OTHER_SLOT)


def test_tuple_of_a_ufrag_given_to_another_session_moves(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.add_session("srvr", 0x3333, SLOT)

    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__moved": 1}


@pytest.mark.parametrize(("silent_ticks", "moved"), [(-1, False), (5, False), (6, True)])
def test_silent_flow_moves_after_five_seconds(
    two_sessions: Datapath, silent_ticks: int, moved: bool
) -> None:
    ufrag = two_sessions.add_session("srvr", SESSION, SLOT)
    two_sessions.add_flow(ufrag_hash=ufrag, silent_ticks=silent_ticks)

    outcome = two_sessions.receive(bytes(OTHER_CHECK))

    what = "flow__moved" if moved else "flow__contested"
    assert outcome.counted == REQUEST | {what: 1}


def test_flow_that_nobody_has_answered_from_protects_no_tuple(two_sessions: Datapath) -> None:
    """Or one packet from a forged address would keep the next call from there away."""
    two_sessions.receive(bytes(CHECK))

    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__moved": 1}
    assert owner_of(two_sessions) == (OTHER_SESSION, OTHER_SLOT)


@pytest.mark.parametrize(
    ("payload", "proven"),
    [(p.RTP, True), (p.DTLS_APPLICATION, True), (p.DTLS_HANDSHAKE, False), (p.stun(1), False)],
    ids=["rtp", "dtls-data", "dtls-handshake", "probe"],
)
def test_media_of_its_owner_proves_a_flow(
    two_sessions: Datapath, payload: bytes, proven: bool
) -> None:
    two_sessions.receive(bytes(CHECK))

    two_sessions.send(bytes(p.from_lane(payload)))
    two_sessions.send(bytes(p.from_lane(p.RTP, lane=p.OTHER_LANE)))  # not its owner

    flow = two_sessions.flow()
    assert flow is not None
    assert flow["proven"] is proven


def test_tuple_lost_for_silence_is_given_back_once(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.send(bytes(p.from_lane(p.RTP)))
    two_sessions.pass_ticks(6)
    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__moved": 1}
    two_sessions.send(bytes(p.from_lane(p.RTP, lane=p.OTHER_LANE)))

    assert two_sessions.receive(bytes(CHECK)).counted == REQUEST | {"flow__reclaimed": 1}

    two_sessions.send(bytes(p.from_lane(p.RTP)))
    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__contested": 1}
    assert owner_of(two_sessions) == (SESSION, SLOT)


def test_squatter_that_lost_the_tuple_never_gets_a_proven_flow(two_sessions: Datapath) -> None:
    """Who held it unproven has lost nothing; or one packet now would buy a call in an hour."""
    two_sessions.receive(bytes(OTHER_CHECK))
    assert two_sessions.receive(bytes(CHECK)).counted == REQUEST | {"flow__moved": 1}
    two_sessions.send(bytes(p.from_lane(p.RTP)))

    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__contested": 1}
    assert owner_of(two_sessions) == (SESSION, SLOT)


@pytest.mark.parametrize(
    ("payload", "alive"),
    [
        (p.RTP, True),
        (p.RTCP, True),
        (p.DTLS_APPLICATION, True),
        (p.check("srvr:c"), True),
        (p.DTLS_HANDSHAKE, False),
        (p.stun(p.BINDING_SUCCESS), False),
        (p.check("other:c"), False),
    ],
    ids=["rtp", "rtcp", "dtls-data", "own-check", "dtls-handshake", "response", "other-check"],
)
def test_sign_of_life_keeps_a_flow(two_sessions: Datapath, payload: bytes, alive: bool) -> None:
    ufrag = two_sessions.add_session("srvr", SESSION, SLOT)
    two_sessions.add_flow(ufrag_hash=ufrag, silent_ticks=4)

    two_sessions.receive(bytes(p.ip4(payload)))

    flow = two_sessions.flow()
    assert flow is not None
    assert (flow["age"] == two_sessions.tick % 256) is alive


def test_ice_restart_moves_the_flow_to_the_new_ufrag_of_its_session(datapath: Datapath) -> None:
    datapath.add_session("srvr", SESSION)
    datapath.receive(bytes(CHECK))
    new = datapath.add_session("newufrag", SESSION)

    outcome = datapath.receive(bytes(p.ip4(p.check("newufrag:c"))))

    assert outcome.counted == REQUEST
    flow = datapath.flow()
    assert flow is not None
    assert flow["ufrag_hash"] == new


def test_other_ufrag_of_a_session_is_verified_too(datapath: Datapath) -> None:
    datapath.add_session("srvr", SESSION)
    datapath.receive(bytes(CHECK))
    before = datapath.flow()
    datapath.add_session("newufrag", SESSION)

    forged = p.ip4(p.check("newufrag:c", password=b"somebody else's password, a guess"))

    assert datapath.receive(bytes(forged)).counted == {"received": 1, "drop__bad_integrity": 1}
    assert datapath.flow() == before


def test_flipping_ufrags_makes_no_flows_beyond_the_cap(datapath: Datapath) -> None:
    ufrags = ("srvr", "newufrag")
    for ufrag in ufrags:
        datapath.add_session(ufrag, SESSION)
    datapath.maps.settings.update(
        0, (datapath.maps.settings.lookup(0) or {}) | {"check_budget": 999}
    )
    for port in range(1, 60):
        for ufrag in ufrags:
            datapath.receive(bytes(p.ip4(p.check(f"{ufrag}:c"), sport=port)))
    assert datapath.flows() <= len(ufrags) * SESSION_FLOWS


def test_healed_flow_is_not_claimed_while_it_lives(two_sessions: Datapath) -> None:
    """A neighbour on the same owner could otherwise name a healed flow his and end it with his."""
    two_sessions.send(bytes(p.from_lane(p.RTP)))

    assert two_sessions.receive(bytes(CHECK)).counted == REQUEST  # its owner: nothing to contest
    contested = two_sessions.receive(bytes(OTHER_CHECK)).counted
    assert contested == REQUEST | {"flow__contested": 1}
    assert owner_of(two_sessions) == (0, SLOT)


def test_reborn_owner_is_never_taken_for_the_dead_one(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.add_owner(SLOT, p.LANE, generation=GENERATION + 1)

    assert two_sessions.receive(bytes(p.ip4(p.RTP))).counted == {
        "received": 1,
        "drop__stale_owner": 1,
    }
    assert two_sessions.receive(bytes(CHECK)).counted == {"received": 1, "drop__stale_owner": 1}
    # And its tuple is free for the living.
    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__moved": 1}


def test_packets_of_an_owner_that_is_down_are_dropped(two_sessions: Datapath) -> None:
    two_sessions.receive(bytes(CHECK))
    two_sessions.add_owner(SLOT, p.LANE, state=DOWN)

    for frame in (CHECK, p.ip4(p.RTP)):
        outcome = two_sessions.receive(bytes(frame))
        assert outcome.verdict == XDP_DROP
        assert outcome.counted == {"received": 1, "drop__owner_down": 1}


def test_flow_of_an_owner_that_is_down_waits_for_it(two_sessions: Datapath) -> None:
    """It may have stalled only; who forges its client's address must not inherit the call."""
    two_sessions.receive(bytes(CHECK))
    two_sessions.send(bytes(p.from_lane(p.RTP)))
    two_sessions.add_owner(SLOT, p.LANE, state=DOWN)

    assert two_sessions.receive(bytes(OTHER_CHECK)).counted == REQUEST | {"flow__contested": 1}


def test_draining_owner_keeps_its_sessions(two_sessions: Datapath) -> None:
    two_sessions.add_owner(SLOT, p.LANE, state=DRAINING)
    assert two_sessions.receive(bytes(CHECK)).frame == p.to_lane(CHECK, p.LANE)


def test_flow_is_of_one_vip_only(datapath: Datapath) -> None:
    """The same client port may reach two VIPs; each has a flow of its own."""
    datapath.add_session("srvr")
    datapath.receive(bytes(CHECK))
    elsewhere = bytes(p.ip4(p.RTP)).replace(b"\xc0\x00\x02\x0a", b"\xc0\x00\x02\x0b", 1)
    settings = datapath.maps.settings.lookup(0)
    assert settings is not None
    settings["vips"][2] = bytes(10) + b"\xff\xff\xc0\x00\x02\x0b"
    datapath.maps.settings.update(0, settings | {"vip_mask": 0b111})

    assert datapath.receive(elsewhere).counted == {"received": 1, "drop__no_flow": 1}
