"""What the sweep takes out of the flow table, what it leaves, and what it counts."""

import signal

import packets as p
import pytest

from datapath import (
    GENERATION,
    OTHER_SESSION,
    OTHER_SLOT,
    PLACES,
    SESSION,
    SLOT,
    Datapath,
    make_entry,
    tag_of,
)

MEDIA = {"received": 1, "steered__rtp": 1}
NO_FLOW = {"received": 1, "drop__no_flow": 1}
IDLE_TICKS = 112


@pytest.fixture
def edge(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr", SESSION, SLOT)
    datapath.add_session("other", OTHER_SESSION, OTHER_SLOT)
    for slot in (SLOT, OTHER_SLOT):
        datapath.maps.owner_flows.update(slot, {})
    return datapath


def put(edge: Datapath, port: int, *, ufrag: str = "srvr", silent_ticks: int = 0) -> int:
    """A flow of a session that is there; returns the place."""
    session = edge.session(ufrag)
    return edge.add_flow(
        port=port,
        session=session["session_id"],
        ufrag_hash=edge.session_key(ufrag),
        slot=session["owner"]["slot"],
        silent_ticks=silent_ticks,
    )


def counted(edge: Datapath, slot: int = SLOT) -> dict[str, int] | None:
    return edge.maps.owner_flows.lookup(slot)


def test_flow_of_a_session_that_is_gone_is_swept(edge: Datapath) -> None:
    for port in (1, 2):
        put(edge, port)
        put(edge, port + 10, ufrag="other")
    edge.maps.sessions.delete(edge.session_key("srvr"))

    assert edge.sweep() == {"swept__ended": 2}

    assert [bool(edge.flow(port=port)) for port in (1, 2, 11, 12)] == [False, False, True, True]
    assert counted(edge) == {"flows": 0, "unclaimed": 0}
    assert counted(edge, OTHER_SLOT) == {"flows": 2, "unclaimed": 0}


def test_flow_of_a_ufrag_that_is_anothers_by_now_is_swept(edge: Datapath) -> None:
    put(edge, 1)
    edge.add_session("srvr", 0x3333, SLOT)

    assert edge.sweep() == {"swept__ended": 1}


def test_flow_of_an_ice_restart_goes_with_its_new_ufrag(edge: Datapath) -> None:
    place = put(edge, 1)
    edge.add_session("newufrag", SESSION, SLOT)
    edge.receive(bytes(p.ip4(p.check("newufrag:c"), sport=1)))
    edge.maps.sessions.delete(edge.session_key("srvr"))
    assert edge.sweep() == {}
    assert edge.entry(place)

    edge.maps.sessions.delete(edge.session_key("newufrag"))
    assert edge.sweep() == {"swept__ended": 1}


@pytest.mark.parametrize("session", [SESSION, 0], ids=["claimed", "healed"])
def test_flow_of_an_owner_that_was_reborn_is_swept(edge: Datapath, session: int) -> None:
    edge.add_flow(session=session, ufrag_hash=edge.session_key("srvr"))
    edge.add_owner(SLOT, p.LANE, generation=GENERATION + 1)

    assert edge.sweep() == {"swept__ended": 1}
    assert edge.flows() == 0


@pytest.mark.parametrize("slot", [500, 65535])
def test_flow_of_a_slot_that_nobody_has_is_swept(edge: Datapath, slot: int) -> None:
    edge.add_flow(slot=slot, session=0)
    assert edge.sweep() == {"swept__ended": 1}


@pytest.mark.parametrize(
    ("silent_ticks", "is_swept"), [(0, False), (-8, False), (111, False), (112, True), (247, True)]
)
def test_idle_flow_is_swept(edge: Datapath, silent_ticks: int, is_swept: bool) -> None:
    put(edge, 1, silent_ticks=silent_ticks)
    assert edge.sweep() == ({"swept__idle": 1} if is_swept else {})


def test_healed_flow_is_swept_when_it_is_idle_only(edge: Datapath) -> None:
    edge.send(bytes(p.from_lane(p.RTP)))
    edge.pass_ticks(IDLE_TICKS - 1)
    assert edge.sweep() == {}
    assert counted(edge) == {"flows": 1, "unclaimed": 1}

    edge.pass_ticks(1)
    assert edge.sweep() == {"swept__idle": 1}


def test_swept_tuple_is_free(edge: Datapath) -> None:
    put(edge, p.CLIENT_PORT, silent_ticks=IDLE_TICKS)
    assert edge.receive(bytes(p.ip4(b"\x16" + bytes(20)))).counted["steered__dtls"] == 1
    edge.sweep()

    assert edge.receive(bytes(p.ip4(p.RTP))).counted == NO_FLOW
    learned = edge.receive(bytes(p.ip4(p.check("other:c")))).counted
    assert learned == {"received": 1, "steered__stun_request": 1, "flow__learned": 1}


def test_place_that_is_being_written_is_left(edge: Datapath) -> None:
    place = put(edge, 1, silent_ticks=200)
    bucket = edge.bucket(place)
    bucket["entry"][place % PLACES] &= ~0xFFFFFF
    edge.maps.flows.update(place // PLACES, bucket)
    edge.maps.sessions.delete(edge.session_key("srvr"))

    assert edge.sweep() == {}

    assert edge.bucket(place) == bucket
    assert counted(edge) == {"flows": 0, "unclaimed": 0}


def test_flows_are_counted_by_owner(edge: Datapath) -> None:
    for port in range(1, 6):
        put(edge, port)
    for port in range(11, 14):
        put(edge, port, ufrag="other")
    for port in (21, 22):
        edge.send(bytes(p.from_lane(p.RTP, dport=port)))

    assert edge.sweep() == {}

    assert counted(edge) == {"flows": 7, "unclaimed": 2}
    assert counted(edge, OTHER_SLOT) == {"flows": 3, "unclaimed": 0}
    # Whoever counts begins anew: a pass adds to what stands there.
    edge.sweep()
    assert counted(edge) == {"flows": 14, "unclaimed": 4}


def test_sweep_reads_the_whole_table(edge: Datapath) -> None:
    for number in range(edge.buckets):
        entries = [make_entry(tag_of(number + 1), SLOT, GENERATION, proven=True)] * PLACES
        ages = [edge.tick % 256] * PLACES
        edge.maps.flows.update(number, {"entry": entries, "age": bytes(ages)})
        for place in range(PLACES):
            edge.maps.flow_details.update(number * PLACES + place, {})

    edge.sweep()

    assert counted(edge) == {"flows": edge.buckets * PLACES, "unclaimed": edge.buckets * PLACES}


@pytest.mark.parametrize(
    ("first", "buckets", "following"), [(0, 16, 16), (40, 16, 56), (47, 1, 63)]
)
def test_sweep_takes_a_stretch_and_says_where_the_next_begins(
    edge: Datapath, first: int, buckets: int, following: int
) -> None:
    """16 buckets a run; a stretch that goes over the table's end stops there."""
    places = [put(edge, port) for port in range(1, 121)]
    edge.maps.sessions.delete(edge.session_key("srvr"))

    assert edge.sweeper.run(first, buckets) == following

    left = [place for place in places if edge.entry(place)]
    assert left == [place for place in places if not first <= place // PLACES < following]


def test_sweep_behind_the_table_does_nothing(edge: Datapath) -> None:
    place = put(edge, 1, silent_ticks=IDLE_TICKS)
    assert edge.sweeper.run(edge.buckets, 16) == edge.buckets + 16
    # Where the number of the place is beyond 32 bits.
    edge.sweeper.run(0xFFFFFFF0, 16)
    assert edge.entry(place)


def test_sweep_is_not_cut_short_by_a_signal(edge: Datapath) -> None:
    put(edge, 1)
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        for _ in range(20):
            edge.maps.owner_flows.update(SLOT, {})
            assert edge.sweep() == {}
            assert counted(edge) == {"flows": 1, "unclaimed": 0}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came
