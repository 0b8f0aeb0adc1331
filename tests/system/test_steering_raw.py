"""Steering with bare sockets: who got which datagram, by content, and what the counters say."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from system.lab import Lab, counted, wait_until
from system.namespaces import EDGE_ADDRESSES
from system.raw import RawOwner, add_session, raw_client, raw_owner
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins

pytestmark = pytest.mark.privileged

SESSIONS = 200
MEDIA_PACKETS = 10


@pytest.fixture
def owners(lab: Lab) -> Iterator[tuple[RawOwner, RawOwner]]:
    """Two owners without sessions."""
    with raw_owner(lab, 20500) as first, raw_owner(lab, 20501) as second:
        yield first, second


def test_200_sessions_over_two_owners_each_datagram_reaches_its_owner(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    before = lab.edge.counters()
    with ExitStack() as stack:
        # Owner and IP version alternate independently: each owner has both.
        clients = [
            stack.enter_context(raw_client(lab, (4, 6)[number // 2 % 2]))
            for number in range(SESSIONS)
        ]
        sessions = [add_session(lab.edge, number, owners[number % 2]) for number in range(SESSIONS)]
        for session, client in zip(sessions, clients, strict=True):
            client.send(session.build_check(0))
        checks = [owner.receive(SESSIONS // 2) for owner in owners]
        for packet in range(MEDIA_PACKETS):
            for session, client in zip(sessions, clients, strict=True):
                client.send(session.build_media(packet))
        media = [owner.receive(SESSIONS // 2 * MEDIA_PACKETS) for owner in owners]

        for index, owner in enumerate(owners):
            own = range(index, SESSIONS, 2)
            assert {(one.session, one.source) for one in checks[index]} == {
                (number, clients[number].address) for number in own
            }
            assert sorted((one.session, one.packet) for one in media[index]) == [
                (number, packet) for number in own for packet in range(MEDIA_PACKETS)
            ]
            assert owner.drain() == []

        # The way back: the client sees the shared port, whatever lane the owner sends from.
        for number, client in enumerate(clients):
            owners[number % 2].send(f"answer {number}".encode(), client.address)
            assert client.receive() == (f"answer {number}".encode(), client.vip)
        moved = counted(before, lab.edge.counters())
        for session in sessions:
            lab.edge.api("DELETE", f"/sessions/{session.id}")

    # A tuple that an ended session had used is moved instead of learned.
    moved["flow__learned"] += moved.pop("flow__moved", 0)
    assert moved == {
        "received": SESSIONS * (1 + MEDIA_PACKETS),
        "steered__stun_request": SESSIONS,
        "steered__rtp": SESSIONS * MEDIA_PACKETS,
        "flow__learned": SESSIONS,
        "returned__rewritten": SESSIONS,
    }


def test_status_counts_what_each_owner_was_sent(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    def steered() -> dict[int, int]:
        return {owner["slot"]: owner["steered_packets"] for owner in lab.edge.status()["owners"]}

    first, second = owners
    before = steered()
    with raw_client(lab) as client:
        session = add_session(lab.edge, 1, second)
        client.send(session.build_check(0))
        client.send(session.build_media(1))
        second.receive(2)
        status = lab.edge.status()
    sessions = {owner["slot"]: owner["sessions"] for owner in status["owners"]}
    assert (sessions[first.slot], sessions[second.slot]) == (0, 1)
    after = steered()
    assert after[first.slot] - before[first.slot] == 0
    assert after[second.slot] - before[second.slot] == 2
    assert status["verdicts_add_up"] is True


def test_living_session_keeps_its_tuple_when_another_session_claims_it(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    victim_owner, other_owner = owners
    before = lab.edge.counters()
    with raw_client(lab) as client:
        victim = add_session(lab.edge, 1, victim_owner)
        other = add_session(lab.edge, 2, other_owner)
        client.send(victim.build_check(0))
        client.send(victim.build_media(1))
        first = victim_owner.receive(2)
        # What its owner sends proves the flow; until then a genuine request may take the tuple.
        victim_owner.send(victim.build_media(0), first[0].source)
        client.receive()
        for packet in range(2, 12):
            client.send(other.build_check(packet))  # from the living session's tuple
            client.send(victim.build_media(packet))
        kept = first + victim_owner.receive(10)
        claimed = other_owner.receive(10)
        moved = counted(before, lab.edge.counters())
    # Nothing of the living session is lost; the claims reach their own owner and no more.
    assert {(one.session, one.packet) for one in kept} == {(1, packet) for packet in range(12)}
    assert {(one.session, one.kind) for one in claimed} == {(2, "check")}
    assert victim_owner.drain() == other_owner.drain() == []
    assert moved["flow__contested"] == 10
    assert "flow__moved" not in moved


def test_tuple_of_an_ended_session_serves_a_new_one_at_once(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    old_owner, new_owner = owners
    with raw_client(lab) as client:
        old = add_session(lab.edge, 1, old_owner)
        client.send(old.build_check(0))
        client.send(old.build_media(1))
        old_owner.receive(2)
        lab.edge.api("DELETE", f"/sessions/{old.id}")
        new = add_session(lab.edge, 2, new_owner)
        before = lab.edge.counters()
        client.send(new.build_check(0))
        for packet in range(1, 11):
            client.send(new.build_media(packet))
        arrived = new_owner.receive(11)
        moved = counted(before, lab.edge.counters())
    assert [one.packet for one in arrived] == list(range(11))
    assert old_owner.drain() == []
    assert "flow__contested" not in moved
    # The sweep may have been quicker to take the dead flow away: then it is learned anew.
    assert moved.get("flow__moved", 0) + moved.get("flow__learned", 0) == 1


def test_client_with_a_new_address_goes_on_after_one_check(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    owner, _ = owners
    session = add_session(lab.edge, 1, owner)
    with raw_client(lab) as before, raw_client(lab) as after:
        before.send(session.build_check(0))
        before.send(session.build_media(1))
        after.send(session.build_check(2))
        after.send(session.build_media(3))
        arrived = owner.receive(4)
        sources = [before.address] * 2 + [after.address] * 2
    assert [(one.packet, one.source) for one in arrived] == list(enumerate(sources))


@pytest.mark.parametrize("family", [4, 6])
def test_flow_table_emptied_while_the_server_talks_is_healed_by_its_next_packet(
    lab: Lab, owners: tuple[RawOwner, RawOwner], family: int
) -> None:
    owner, _ = owners
    session = add_session(lab.edge, 1, owner)
    with (
        raw_client(lab, family) as client,
        Maps.open(Pins(lab.edge.bpffs, lab.edge.instance)) as maps,
    ):
        client.send(session.build_check(0))
        owner.receive(1)
        before = lab.edge.counters()
        # One round is what both sides send in 20 ms: 5 lost packets are 100 ms.
        for packet in range(1, 51):
            if packet == 25:
                for number, bucket in enumerate(maps.flows.whole()):
                    if any(bucket["entry"]):
                        maps.flows.update(number, {})
            client.send(session.build_media(packet))
            # Media, as a transceiver's: only what a session in progress sends heals.
            owner.send(session.build_media(packet), client.address)
            assert client.receive() == (session.build_media(packet), client.vip)
        client.send(session.build_media(51))
        arrived = owner.receive(1)
        while arrived[-1].packet != 51:
            arrived += owner.receive(1)
        moved = counted(before, lab.edge.counters())
    lost = set(range(1, 52)) - {one.packet for one in arrived}
    assert 1 <= len(lost) <= 5, f"lost {sorted(lost)}"
    assert 25 in lost, "the table was not empty, the test shows nothing"
    assert moved["flow__healed"] == 1
    assert moved["drop__no_flow"] == len(lost)


def test_owner_removed_its_packets_drop_counted_and_the_other_owner_loses_nothing(
    lab: Lab, owners: tuple[RawOwner, RawOwner]
) -> None:
    with raw_client(lab) as leaving, raw_client(lab) as staying:
        stays = add_session(lab.edge, 1, owners[0])
        staying.send(stays.build_check(0))
        with raw_owner(lab, 20502) as third:
            leaves = add_session(lab.edge, 2, third)
            leaving.send(leaves.build_check(0))
            third.receive(1)
        before = lab.edge.counters()
        leaving.send(leaves.build_check(1))
        leaving.send(leaves.build_media(2))
        staying.send(stays.build_media(3))
        owners[0].receive(2)
        wait_until(lambda: counted(before, lab.edge.counters()).get("received") == 3, "3 received")
        moved = counted(before, lab.edge.counters())
    assert moved["drop__no_session"] == 1
    assert moved["steered__rtp"] == 1
    dropped = sum(count for name, count in moved.items() if name.startswith("drop__"))
    assert dropped == 2


def test_lane_from_outside_is_guarded(lab: Lab, owners: tuple[RawOwner, RawOwner]) -> None:
    owner, _ = owners
    session = add_session(lab.edge, 1, owner)
    before = lab.edge.counters()
    with raw_client(lab) as client:
        client.socket.sendto(session.build_check(0), (EDGE_ADDRESSES[4], owner.lane))
        client.send(session.build_check(1))
        arrived = owner.receive(1)
    assert [one.packet for one in arrived] == [1]
    assert counted(before, lab.edge.counters())["guard__lane"] == 1
