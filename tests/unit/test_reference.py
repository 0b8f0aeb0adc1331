"""What must hold of the reference itself, whatever happens to it: hypothesis chooses what does.

That the programs do the same is tests/datapath/test_differential.py's business.
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.frames import Dress, checksum, udp_frame
from fuzz.generate import generate
from fuzz.reference_side import ReferenceSide
from fuzz.steps import EndSession, Receive, Send, SetSession, SetSettings
from fuzz.world import LANES, SHARED_PORT, VIP4, VIP6
from reference import Flow, FlowKey, FlowTable, Owner, OwnerId, Reference, Settings
from reference.table import METERS, MOVABLE_TICKS, PLACES, Meters, hash_flow, silent_ticks, tag_of

OUTSIDE = 2
CLIENT4, CLIENT6 = VIP4[:12] + bytes([198, 51, 100, 7]), VIP6[:15] + b"\x77"
MEDIA = b"\x80\x6f" + bytes(30)
seeds = st.integers(0, 1 << 32).map(str)


def small_edge(generation: int = 1) -> Reference:
    edge = Reference(
        Settings(bytes(16), [VIP4, VIP6], SHARED_PORT, range(20000, 20016), (3, 5, 7, 9, 11, 13), 8)
    )
    edge.owners[1] = Owner(generation, LANES[0])
    edge.lanes[LANES[0]] = OwnerId(1, generation)
    return edge


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_every_packet_for_the_shared_port_ends_in_one_verdict(seed: str) -> None:
    side = ReferenceSide()
    for step in generate(seed, packets=150):
        side.apply(step)
        if not isinstance(step, Receive) or side.outcome is None:
            continue
        counted = side.outcome.counted
        verdicts = [
            count
            for name, count in counted.items()
            if name.startswith(("steered__", "drop__", "pass__"))
        ]
        assert verdicts == [1] * counted.get("received", 0)
        dropped = any(name.startswith(("drop__", "guard__")) for name in counted)
        assert side.outcome.verdict == ("drop" if dropped else "pass")


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_flow_of_a_living_session_that_is_heard_is_not_moved(seed: str) -> None:
    """Whatever comes from its tuple, and whoever else has flows."""
    side = ReferenceSide()
    for step in generate(seed, packets=150):
        edge = side.edge
        held = {
            place: (flow.key, flow.session)
            for place, flow in edge.table.flows.items()
            if flow.proven
            and flow.session
            and not flow.displaced
            and edge.table.silence(place, side.now >> 30) < MOVABLE_TICKS
            and not edge.is_ended(flow)
        }
        side.apply(step)
        if isinstance(step, Receive | Send):
            after = edge.table.flows
            for place, was in held.items():
                assert place in after
                assert (after[place].key, after[place].session) == was


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_no_ufrag_has_more_flows_than_its_cap(seed: str) -> None:
    """Ages and settings do not change here, and no ICE restart brings flows with it."""
    side, cap = ReferenceSide(), 0
    for step in generate(seed, packets=200):
        if isinstance(step, SetSettings):
            if cap:
                continue
            cap = step.session_flows
        if isinstance(step, SetSession):
            # A ufrag a session: else a flow goes over to an entry that may be full.
            key = side.key(step.ufrag)
            ids = {session.id for session in side.edge.sessions.values()}
            if key in side.edge.sessions or step.id in ids:
                continue
        if isinstance(step, EndSession):
            continue
        side.apply(step)
        for key in side.edge.sessions:
            flows = side.edge.table.flows.values()
            assert sum(flow.session != 0 and flow.ufrag_hash == key for flow in flows) <= cap


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_tag_stands_once_in_its_buckets_and_where_it_belongs(seed: str) -> None:
    side = ReferenceSide()
    for step in generate(seed, packets=150):
        side.apply(step)
    table, keys = side.edge.table, side.edge.settings.flow_keys
    for place, flow in table.flows.items():
        places = table.places(hash_flow(keys, flow.key))
        assert place in places
        same = [p for p in places if p in table.flows and table.flows[p].tag == flow.tag]
        assert same == [place]


@given(
    payload=st.binary(min_size=1, max_size=60),
    port=st.integers(0, 0xFFFF),
    ipv4=st.booleans(),
    tags=st.integers(0, 2),
    words=st.integers(0, 10),
)
def test_way_back_undoes_the_hand_over(
    payload: bytes, port: int, ipv4: bool, tags: int, words: int
) -> None:
    """Swapped, what was handed over leaves as it had come: ports, checksum and all."""
    client, vip = (CLIENT4, VIP4) if ipv4 else (CLIENT6, VIP6)
    dress = Dress(vlans=(5,) * tags, options=b"\1" * 4 * words if ipv4 else b"")
    edge = small_edge()
    edge.send(udp_frame((vip, LANES[0]), (client, port), MEDIA), 0)
    came = udp_frame((client, port), (vip, SHARED_PORT), b"\x80" + payload, dress)

    handed = edge.receive(came, OUTSIDE, 0).frame

    assert handed == udp_frame((client, port), (vip, LANES[0]), b"\x80" + payload, dress)
    out = udp_frame((vip, LANES[0]), (client, port), payload, dress)
    back = udp_frame((vip, SHARED_PORT), (client, port), payload, dress)
    assert edge.send(out, 0).frame == back


@given(st.binary(min_size=1, max_size=50), st.integers(0, 0xFFFF))
def test_checksum_stays_right_and_none_stays_none(payload: bytes, port: int) -> None:
    edge = small_edge()
    edge.send(udp_frame((VIP4, LANES[0]), (CLIENT4, port), MEDIA), 0)
    source, destination = (CLIENT4, port), (VIP4, SHARED_PORT)
    frame = udp_frame(source, destination, b"\x80" + payload)

    segment = edge.receive(frame, OUTSIDE, 0).frame[34:]

    pseudo = CLIENT4[12:] + VIP4[12:] + bytes([0, 17]) + len(segment).to_bytes(2, "big")
    assert checksum(pseudo, segment) == 0
    without = udp_frame(source, destination, b"\x80" + payload, Dress(checksum=0))
    assert edge.receive(without, OUTSIDE, 0).frame[40:42] == b"\0\0"


@given(st.binary(max_size=200))
def test_any_bytes_are_left_alone_or_judged(frame: bytes) -> None:
    edge = small_edge()
    outcome = edge.receive(frame, OUTSIDE, 0)
    assert outcome.frame == frame
    assert set(outcome.counted) <= {"guard__hidden_port"}


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 247))
def test_silence_is_known_up_to_247_ticks_and_never_negative(tick: int, silent: int) -> None:
    assert silent_ticks(tick, (tick - silent) & 0xFF) == silent
    for ahead in range(9):
        assert silent_ticks(tick, (tick + ahead) & 0xFF) == 0


@given(st.integers(1, 1 << 20).map(lambda half: 2 * half), st.integers(0, (1 << 64) - 1))
def test_two_buckets_are_two_and_in_the_table(buckets: int, flow_hash: int) -> None:
    places = FlowTable(buckets).places(flow_hash)
    assert len(set(places)) == 2 * PLACES
    assert 0 <= min(places) <= max(places) < buckets * PLACES


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40), st.integers(0, 0xFFFF_FFFF))
@example([0, 1 << 13], 0)
def test_meter_never_counts_more_than_was_charged(hashes: list[int], tick: int) -> None:
    meters = Meters()
    for flow_hash in hashes:
        meters.charge(flow_hash, tick)
    # Bits 0 to 12 are the index, 16 to 39 the label: who differs in others only is the same one.
    told_apart = [(one % METERS, one >> 16 & 0xFFFFFF) for one in hashes]
    for flow_hash, one in zip(hashes, told_apart, strict=True):
        assert 0 <= meters.count(flow_hash, tick) <= told_apart.count(one)
        assert meters.count(flow_hash, tick + 1) == 0


def test_full_buckets_give_up_the_first_of_those_longest_silent() -> None:
    table = FlowTable(2)
    for place in range(2 * PLACES):
        key = FlowKey(bytes(16), place, 0)
        age = 10 if place in (5, 9) else 20
        table.put(place, Flow(place + 1, key, OwnerId(1, 1), age=age, proven=True))
    assert table.make_room(1 << 50, 10 + 27) is None
    first, *_ = (place for place in table.places(1 << 50) if place in (5, 9))
    assert table.make_room(1 << 50, 10 + 28) == first
    table.flows[13].proven = False
    assert table.make_room(1 << 50, 20) == 13


@pytest.mark.parametrize(("flow_hash", "tag"), [(0, 1), (1 << 39, 1), (5, 5), (3 << 39 | 7, 7)])
def test_tag_is_never_that_of_an_empty_place(flow_hash: int, tag: int) -> None:
    assert tag_of(flow_hash) == tag
