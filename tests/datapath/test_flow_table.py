"""Where flows stand: two buckets of seven places each, and who makes room when both are full."""

from dataclasses import dataclass

import packets as p
import pytest
from collisions import PORTS, buckets_of, flow_hash_of, ports_of
from scapy.layers.l2 import Ether

from datapath import (
    FLOW_KEYS,
    OTHER_SESSION,
    OTHER_SLOT,
    PLACES,
    SESSION,
    XDP_PASS,
    Datapath,
    flow_key,
    make_entry,
    mapped,
    tag_of,
)
from reference.table import hash_flow

REQUEST = {"received": 1, "steered__stun_request": 1}
LEARNED = REQUEST | {"flow__learned": 1}
REFUSED = REQUEST | {"flow__refused": 1}
EVICTED = LEARNED | {"flow__evicted": 1}
RETURNED = {"returned__rewritten": 1}
NO_FLOW = {"received": 1, "drop__no_flow": 1}
BUCKETS = (3, 17)
FULL = 2 * PLACES
CHECK = p.check("srvr:c")
# bpf/flows.h: with so many empty places the first bucket is taken at once.
FIRST_BUCKET_ROOM = 5


@dataclass(frozen=True)
class Full:
    """A table with two full buckets, and the port of one more flow for them."""

    datapath: Datapath
    client: str
    ports: list[int]
    places: list[int]
    new: int

    def frame(self, payload: bytes, port: int) -> bytes:
        build = p.ip4 if self.client == p.CLIENT4 else p.ip6
        return bytes(build(payload, sport=port))

    def request(self, port: int) -> dict[str, int]:
        return self.datapath.receive(self.frame(CHECK, port)).counted

    def here(self) -> list[int]:
        """The ports whose flows are there."""
        flows = self.datapath
        return [port for port in [*self.ports, self.new] if flows.flow(self.client, port)]

    def set_silence(self, silences: list[int]) -> None:
        """For how many ticks each flow has been silent, in the order of the places."""
        for place, silent in zip(self.places, silences, strict=True):
            bucket = self.datapath.bucket(place)
            bucket["age"][place % PLACES] = (self.datapath.tick - silent) % 256
            self.datapath.maps.flows.update(place // PLACES, bucket)

    def unprove(self, at: int) -> None:
        """Have it that the owner has sent no media to that flow's tuple yet."""
        bucket = self.datapath.bucket(self.places[at])
        bucket["entry"][self.places[at] % PLACES] &= ~(1 << 24)
        self.datapath.maps.flows.update(self.places[at] // PLACES, bucket)


@pytest.fixture
def edge(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr")
    datapath.add_session("other", OTHER_SESSION, OTHER_SLOT)
    return datapath


@pytest.fixture(params=[p.CLIENT4, p.CLIENT6], ids=["v4", "v6"])
def full(edge: Datapath, request: pytest.FixtureRequest) -> Full:
    client = str(request.param)
    *ports, new = ports_of(edge, BUCKETS, FULL + 1, client)
    places = [edge.add_flow(client, port=port, session=9, ufrag_hash=0) for port in ports]
    edge.maps.sessions.update(0, {"session_id": 9})  # so that they are of a living session
    return Full(edge, client, ports, places, new)


def place_of(datapath: Datapath, port: int) -> int:
    flow = datapath.flow(port=port)
    assert flow is not None
    place: int = flow["place"]
    return place


def fill(datapath: Datapath, bucket: int, count: int) -> None:
    """Put flows of no tuple of ours into a bucket."""
    whole = datapath.bucket(bucket * PLACES)
    for place in range(count):
        whole["entry"][place] = make_entry(tag_of(place + 1), OTHER_SLOT, 1, proven=True)
        whole["age"][place] = datapath.tick % 256
    datapath.maps.flows.update(bucket, whole)


@pytest.mark.parametrize(
    ("in_first", "in_second", "bucket"),
    [
        (0, 0, 0),
        (PLACES - FIRST_BUCKET_ROOM, 0, 0),
        (PLACES - FIRST_BUCKET_ROOM + 1, 0, 1),
        (4, 3, 1),
        (4, 4, 0),
        (4, 5, 0),
        (7, 6, 1),
        (6, 7, 0),
    ],
)
def test_new_flow_goes_where_there_is_room(
    edge: Datapath, in_first: int, in_second: int, bucket: int
) -> None:
    (port,) = ports_of(edge, BUCKETS, 1)
    fill(edge, BUCKETS[0], in_first)
    fill(edge, BUCKETS[1], in_second)

    assert edge.receive(bytes(p.ip4(CHECK, sport=port))).counted == LEARNED

    wanted = BUCKETS[bucket] * PLACES + (in_first, in_second)[bucket]
    assert place_of(edge, port) == wanted


def test_first_empty_place_of_a_bucket_is_taken(edge: Datapath) -> None:
    (port,) = ports_of(edge, BUCKETS, 1)
    fill(edge, BUCKETS[0], PLACES)
    fill(edge, BUCKETS[1], PLACES)
    bucket = edge.bucket(BUCKETS[0] * PLACES)
    bucket["entry"][2] = bucket["entry"][5] = 0
    edge.maps.flows.update(BUCKETS[0], bucket)

    edge.receive(bytes(p.ip4(CHECK, sport=port)))

    assert place_of(edge, port) == BUCKETS[0] * PLACES + 2


def test_two_buckets_are_never_the_same(edge: Datapath) -> None:
    """Where the hash names one twice, the second is its neighbour."""

    def scaled(word: int) -> int:
        return (word >> 32) * edge.buckets >> 32

    port = next(
        port
        for port in PORTS
        if scaled(h := flow_hash_of(port)) == scaled(h * 0x9E3779B97F4A7C15 % 2**64)
    )
    first, second = buckets_of(edge, port)
    assert second == first ^ 1
    fill(edge, first, PLACES)

    edge.receive(bytes(p.ip4(CHECK, sport=port)))

    assert place_of(edge, port) == second * PLACES
    media = p.ip4(p.RTP, sport=port)
    assert edge.receive(bytes(media)).frame == p.to_lane(media)


def test_flow_is_refused_where_all_are_alive(full: Full) -> None:
    full.set_silence([27] * FULL)

    assert full.request(full.new) == REFUSED

    assert full.here() == full.ports


@pytest.mark.parametrize("silent", [0, 6, 7, 13])
@pytest.mark.parametrize("ticks", [28, 100, 247])
def test_silent_flow_makes_room_and_no_other(full: Full, silent: int, ticks: int) -> None:
    full.set_silence([27 if at != silent else ticks for at in range(FULL)])

    assert full.request(full.new) == EVICTED

    assert full.here() == [*full.ports[:silent], *full.ports[silent + 1 :], full.new]


def test_flow_that_is_not_proven_makes_room_though_it_lives(full: Full) -> None:
    """Flows at forged addresses, kept warm by whoever made them, keep no call out."""
    full.set_silence([0] * FULL)
    full.unprove(5)

    assert full.request(full.new) == EVICTED

    assert full.here() == [*full.ports[:5], *full.ports[6:], full.new]


@pytest.mark.parametrize(
    ("silences", "gone"),
    [
        ([28, 40, 30, 29, 28, 28, 28, 39, 28, 28, 28, 28, 28, 28], 1),
        ([28, 28, 30, 29, 28, 28, 28, 39, 40, 28, 28, 28, 28, 41], 13),
        ([30] * 14, 0),
        ([3, 30, 30, 3, 3, 3, 3, 30, 3, 3, 3, 3, 3, 3], 1),
        ([3, 3, 3, 3, 3, 3, 3, 3, 3, 30, 3, 30, 3, 3], 9),
    ],
    ids=["longest-in-the-first", "longest-in-the-second", "all-alike", "tie", "tie-in-the-second"],
)
def test_longest_silent_flow_makes_room(full: Full, silences: list[int], gone: int) -> None:
    full.set_silence(silences)

    assert full.request(full.new) == EVICTED

    assert full.ports[gone] not in full.here()
    assert len(full.here()) == FULL


@pytest.mark.parametrize("tick", [0, 3, 27, 28, 130, 255])
def test_silence_is_told_over_the_wrap_of_ages(full: Full, tick: int) -> None:
    full.datapath.pass_ticks((tick - full.datapath.tick) % 256)
    full.set_silence([27] * FULL)
    assert full.request(full.new) == REFUSED

    full.set_silence([27] * 9 + [28] + [27] * 4)

    assert full.request(full.new) == EVICTED
    assert full.ports[9] not in full.here()


def test_age_ahead_of_the_clock_is_no_silence(full: Full) -> None:
    """Another CPU's clock may be a little further."""
    full.set_silence([-8] * FULL)

    assert full.request(full.new) == REFUSED


def test_media_keeps_a_flow_from_being_evicted(full: Full) -> None:
    full.set_silence([40] * FULL)
    for port in full.ports[:-1]:
        full.datapath.receive(full.frame(p.RTP, port))

    assert full.request(full.new) == EVICTED

    assert full.here() == [*full.ports[:-1], full.new]


def test_evicted_flow_is_steered_no_more(full: Full) -> None:
    full.set_silence([28] + [0] * (FULL - 1))
    full.request(full.new)

    assert full.datapath.receive(full.frame(p.RTP, full.ports[0])).counted == NO_FLOW
    media = full.frame(p.RTP, full.new)
    assert full.datapath.receive(media).frame == p.to_lane(Ether(media))


def test_lost_flow_is_healed_into_full_buckets_only_over_a_silent_one(full: Full) -> None:
    version = 4 if full.client == p.CLIENT4 else 6
    media = bytes(p.from_lane(p.RTP, version=version, dport=full.new))
    assert full.datapath.send(media).counted == RETURNED | {"flow__refused": 1}
    assert full.here() == full.ports

    full.set_silence([0] * 5 + [28] + [0] * 8)

    counted = full.datapath.send(media).counted
    assert counted == RETURNED | {"flow__healed": 1, "flow__evicted": 1}
    assert full.here() == [*full.ports[:5], *full.ports[6:], full.new]


def test_ended_flows_make_room_when_they_are_swept(full: Full) -> None:
    full.datapath.maps.sessions.delete(0)
    assert full.request(full.new) == REFUSED

    assert full.datapath.sweep() == {"swept__ended": FULL}

    assert full.request(full.new) == LEARNED


def test_flow_of_each_vip_stands_for_itself(edge: Datapath) -> None:
    """A client port may reach two VIPs: other owners, other flows."""
    third = "192.0.2.11"
    settings = edge.maps.settings.lookup(0)
    assert settings is not None
    settings["vips"][2] = mapped(third)
    edge.set(vips=settings["vips"], vip_mask=0b111)
    frames = [p.ip4(p.check(f"{ufrag}:c")) for ufrag in ("srvr", "other")]
    frames[1]["IP"].dst = third
    for frame in frames:
        assert edge.receive(bytes(frame)).counted == LEARNED

    for frame, lane in zip(frames, (p.LANE, p.OTHER_LANE), strict=True):
        frame["Raw"].load = p.RTP
        assert edge.receive(bytes(frame)).frame == p.to_lane(frame, lane)
    assert edge.flows() == 2


def test_flows_of_both_families_stand_side_by_side(edge: Datapath) -> None:
    for frame in (p.ip4(CHECK), p.ip6(CHECK)):
        assert edge.receive(bytes(frame)).counted == LEARNED
    assert edge.flows() == 2


def test_tag_that_stands_for_two_tuples_is_refused(edge: Datapath) -> None:
    """The chance is 1 in 2**35 for each new flow. The one that is there stays as it is."""
    place = edge.add_flow(session=OTHER_SESSION, slot=OTHER_SLOT)
    stranger = {"client": mapped(p.STRANGER4), "client_port": 1, "vip": 0}
    details = {"key": stranger, "session_id": OTHER_SESSION, "ufrag_hash": 5, "displaced": 0}
    edge.maps.flow_details.update(place, details)
    before = edge.bucket(place)

    outcome = edge.receive(bytes(p.ip4(CHECK)))

    assert (outcome.verdict, outcome.counted) == (XDP_PASS, REFUSED)
    assert outcome.frame == p.to_lane(p.ip4(CHECK))
    assert edge.bucket(place) == before
    assert edge.maps.flow_details.lookup(place) == details


@pytest.fixture
def claimed(edge: Datapath) -> Datapath:
    """The tuple's place stands claimed: another CPU is about to write its flow."""
    flow_hash = hash_flow(tuple(FLOW_KEYS), flow_key())
    place = edge.table.places(flow_hash)[0]
    bucket = edge.bucket(place)
    bucket["entry"][0] = tag_of(flow_hash)
    edge.maps.flows.update(place // PLACES, bucket)
    return edge


def test_flow_that_is_being_written_is_not_there_yet(claimed: Datapath) -> None:
    assert claimed.receive(bytes(p.ip4(p.RTP))).counted == NO_FLOW


def test_flow_that_is_being_written_is_not_made_twice(claimed: Datapath) -> None:
    assert claimed.receive(bytes(p.ip4(CHECK))).counted == REFUSED
    assert claimed.send(bytes(p.from_lane(p.RTP))).counted == RETURNED
    assert claimed.flows() == 1


def test_place_that_is_being_written_is_not_evicted(full: Full) -> None:
    full.set_silence([200] + [0] * (FULL - 1))
    bucket = full.datapath.bucket(full.places[0])
    bucket["entry"][0] &= ~0xFFFFFF
    full.datapath.maps.flows.update(full.places[0] // PLACES, bucket)

    assert full.request(full.new) == REFUSED

    assert full.datapath.bucket(full.places[0]) == bucket


def test_table_three_quarters_full_refuses_nobody(edge: Datapath) -> None:
    """As full as the loader lets it be by its size; each flow is then found by its owner."""
    ports = range(20000, 20000 + edge.buckets * PLACES * 3 // 4)
    for port in ports:
        lane = p.LANE + port % 2
        counted = edge.send(bytes(p.from_lane(p.RTP, lane=lane, dport=port))).counted
        assert counted == RETURNED | {"flow__healed": 1}

    assert edge.flows() == len(ports)
    for port in ports:
        media = p.ip4(p.RTP, sport=port)
        assert edge.receive(bytes(media)).frame == p.to_lane(media, p.LANE + port % 2)


def test_flow_notes_who_made_it(edge: Datapath) -> None:
    edge.receive(bytes(p.ip6(CHECK)))

    flow = edge.flow(p.CLIENT6)

    assert flow is not None
    assert flow["key"]["client"] == mapped(p.CLIENT6)
    assert (flow["session_id"], flow["ufrag_hash"]) == (SESSION, edge.session_key("srvr"))
    assert (flow["displaced"], flow["proven"], flow["age"]) == (0, False, edge.tick % 256)
    assert edge.session("srvr")["flows"][0] == 1 + flow["place"]
