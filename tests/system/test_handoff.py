"""Hot hand-off of real calls: aiortc goes on talking while its transceiver is changed under it."""

import asyncio
import json
import logging
import statistics
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from system.lab import WHIP_URL, Lab, counted, open_running_lab, wait_until
from system.whip_caller import whip_call
from turnout.calling import Call, CallReport
from turnout.client import Client
from turnout.errors import CallError
from turnout.wire.sdp import IceCredentials
from turnout.wire.sdpfrag import IceFragment

pytestmark = pytest.mark.privileged

log = logging.getLogger(__name__)

MOVES = 6
TRICKLE = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_running_lab(transceivers=2) as running:
        yield running


class Arrivals:
    """The RTP that a call's client hears, by sequence number, and when: taken under its decoder."""

    def __init__(self, call: Call) -> None:
        self.sequences: list[int] = []
        self.times: list[float] = []
        self.ssrcs: set[int] = set()
        dtls: Any = call.peer.dtls
        handle = dtls._handle_rtp_data

        async def note(data: bytes, arrival_time_ms: int) -> None:
            self.sequences.append(int.from_bytes(data[2:4], "big"))
            self.ssrcs.add(int.from_bytes(data[8:12], "big"))
            self.times.append(monotonic())
            await handle(data, arrival_time_ms)

        dtls._handle_rtp_data = note

    def missing(self) -> int:
        """Sequence numbers that never came, between the first and the last."""
        first = self.sequences[0]
        extended = {(sequence - first) & 0xFFFF for sequence in self.sequences}
        return max(extended) + 1 - len(extended)

    def repeated(self) -> int:
        return len(self.sequences) - len(set(self.sequences))

    def gaps_ms(self, moved_at: Sequence[float] = ()) -> list[float]:
        """Milliseconds from one packet to the next, sorted; with times, of those only."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return sorted(
            (after - before) * 1000
            for before, after in pairs
            if not moved_at or any(before <= moved <= after for moved in moved_at)
        )


def hand_off(lab: Lab, slot: int, to: int | None = None) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with Client(lab.edge.runtime / "api.sock") as api:
            return await api.hand_off(slot, to)

    return asyncio.run(ask())


def sessions_of(lab: Lab) -> list[int]:
    return [owner["sessions"] for owner in lab.edge.status()["owners"]]


def dtls_handshakes(lab: Lab) -> int:
    return sum(lab.edge.transceiver(slot)["counters"]["handled__dtls"] for slot in (0, 1))


def test_call_is_handed_over_again_and_again_and_loses_nothing(lab: Lab) -> None:
    async def work() -> tuple[CallReport, Arrivals, list[dict[str, Any]], dict[str, Any]]:
        async with Call(WHIP_URL, tone=700, family=4) as call:
            await call.connect()
            arrivals = Arrivals(call)
            await call.talk(1.0)
            before = {
                "pair": call.peer.pair(),
                "dtls": dtls_handshakes(lab),
                "ufrag": lab.edge.api("GET", "/sessions")[0]["ufrag"],
            }
            reports, moved_at = [], list[float]()
            for _ in range(MOVES):
                slot = lab.edge.api("GET", "/sessions")[0]["owner"]
                started = monotonic()
                reports.append(await asyncio.to_thread(hand_off, lab, slot))
                # The move is somewhere in between: points close enough to find its gap.
                step = (monotonic() - started) / 20
                moved_at += [started + step * part for part in range(21)]
                await call.talk(0.5)
            after = {
                "pair": call.peer.pair(),
                "dtls": dtls_handshakes(lab),
                "ufrag": lab.edge.api("GET", "/sessions")[0]["ufrag"],
            }
            await call.talk(1.0)
            owner = lab.edge.api("GET", "/sessions")[0]["owner"]
            session = lab.edge.transceiver(owner)["sessions"][0]
            lanes = [lab.edge.transceiver(slot)["counters"] for slot in (0, 1)]
        call.judge_tone()
        return (
            call.report(),
            arrivals,
            reports,
            {
                **session,
                "before": before,
                "after": after,
                "lanes": lanes,
                "moved_at": moved_at,
            },
        )

    kernel = lab.edge.counters()
    report, arrivals, moves, told = lab.in_client(work)
    assert report.error is None
    outcomes = [(move["moved"], move["stayed"], move["lost"]) for move in moves]
    assert outcomes == [(1, [], [])] * MOVES
    assert (arrivals.missing(), arrivals.repeated(), len(arrivals.ssrcs)) == (0, 0, 1)
    assert report.media.lost_back == 0
    # What the client sent was all heard, by the accounts of the last owner, which go back to the
    # first packet; what it sent last may still have been on its way.
    assert told["packets_lost"] == 0
    assert told["packets_in"] >= 200
    # Neither ICE nor DTLS noticed.
    assert told["before"] == told["after"]
    moved = counted(kernel, lab.edge.counters())
    assert {name: count for name, count in moved.items() if name.startswith("drop__")} == {}
    assert moved["flow__learned"] == 1
    gaps = arrivals.gaps_ms()
    # Told, not asserted: on a busy machine a quiet call has such gaps as well.
    log.info(
        "gaps: median %.1f ms, longest %.1f ms, longest around a move %.1f ms",
        statistics.median(gaps),
        gaps[-1],
        arrivals.gaps_ms(told["moved_at"])[-1],
    )
    wait_until(lambda: sessions_of(lab) == [0, 0], "the DELETE reached the last owner")
    for counters in told["lanes"]:
        assert {n: c for n, c in counters.items() if n.startswith("drop__") and c} == {}
        assert counters["internal_errors"] == 0
    assert sum(counters["sessions_taken"] for counters in told["lanes"]) == MOVES


def test_call_restarts_ice_and_is_deleted_wherever_it_is(lab: Lab) -> None:
    ours = IceFragment(IceCredentials("aiortcagain", "p" * 24))

    def session() -> dict[str, Any]:
        (only,) = lab.edge.api("GET", "/sessions")
        found: dict[str, Any] = only
        return found

    async def move() -> dict[str, Any]:
        return await asyncio.to_thread(hand_off, lab, session()["owner"])

    async def work() -> None:
        async with whip_call(WHIP_URL, 550) as caller:
            assert (await move())["moved"] == 1
            assert (await caller.patch(TRICKLE, caller.etag))[0] == 204
            status, text, etag = await caller.patch(str(ours), "*")
            assert (status, etag == caller.etag) == (200, False)
            await caller.hear(3)
            # While it goes on the call stays, and says why.
            (stayed,) = (await move())["stayed"]
            assert "ICE restart" in stayed["reason"]
            theirs = IceFragment.parse(text)
            caller.take_over(ours, theirs)
            assert await caller.check() is not None
            assert theirs.credentials is not None
            ufrag = theirs.credentials.ufrag
            wait_until(lambda: session()["ufrag"] == ufrag, "the end of the restart")
            assert (await move())["moved"] == 1
            assert await caller.check() is not None
            assert (await caller.patch(TRICKLE, etag))[0] == 204
            await caller.hear(5)
            # The call is deleted while it moves, before or after that.
            slot = session()["owner"]
            moving = asyncio.create_task(asyncio.to_thread(hand_off, lab, slot))
            await asyncio.sleep(0)
            assert await caller.delete() == 200
            assert (await moving)["lost"] == []

    lab.in_client(work)
    assert lab.edge.api("GET", "/sessions") == []
    wait_until(
        lambda: not any(lab.edge.transceiver(slot)["sessions"] for slot in (0, 1)),
        "both transceivers without a session",
    )


def test_client_of_a_call_that_was_handed_over_hears_of_its_end(lab: Lab) -> None:
    edge = lab.edge

    async def work() -> None:
        call = Call(WHIP_URL, tone=700)
        try:
            await call.connect()
            await call.talk(0.5)
            for _ in range(2):
                slot = edge.api("GET", "/sessions")[0]["owner"]
                assert (await asyncio.to_thread(hand_off, lab, slot))["moved"] == 1
            slot = edge.api("GET", "/sessions")[0]["owner"]
            edge.api("POST", f"/owners/{slot}/drain", {"deadline_seconds": 0})
            # DTLS' close_notify, and not the silence that takes a client 15 s.
            with pytest.raises(CallError, match="the other side ended the call"):
                await call.talk(10)
        finally:
            with pytest.raises(CallError, match="answered 410"):
                await call.hang_up()
            edge.api("DELETE", f"/owners/{slot}/drain")

    lab.in_client(work)


def test_drain_with_hand_off_moves_all_calls_and_the_owner_is_empty(lab: Lab) -> None:
    calls = 8

    async def work() -> tuple[list[Arrivals], list[int], str, list[int]]:
        opened = [Call(WHIP_URL, tone=300 + 60 * number, family=4) for number in range(calls)]
        async with asyncio.TaskGroup() as group:
            for call in opened:
                group.create_task(call.connect())
        heard = [Arrivals(call) for call in opened]
        await opened[0].talk(1.0)
        before = await asyncio.to_thread(sessions_of, lab)
        done = await asyncio.to_thread(
            lab.edge.run_command,
            *("drain", "0", "--hand-off", "--instance", lab.edge.instance, "--json"),
        )
        await opened[0].talk(1.0)
        after = await asyncio.to_thread(sessions_of, lab)
        async with asyncio.TaskGroup() as group:
            for call in opened:
                group.create_task(call.hang_up())
        for call in opened:
            assert call.report().media.lost_back == 0
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ended"] == "empty"
        return heard, before, done.stderr, after

    heard, before, said, after = lab.in_client(work)
    try:
        assert sum(before) == calls
        assert before[0] > 0
        assert f"owner 0: {before[0]} calls handed over, 0 stay, 0 lost" in said
        assert after == [0, calls]
        assert [arrivals.missing() for arrivals in heard] == [0] * calls
        longest = max(arrivals.gaps_ms()[-1] for arrivals in heard)
        log.info("longest gap between packets of %d calls: %.1f ms", calls, longest)
    finally:
        lab.edge.run_command("undrain", "0", "--instance", lab.edge.instance)
    wait_until(lambda: sessions_of(lab) == [0, 0], "every call gone after its DELETE")


def test_hand_off_without_another_transceiver_is_refused(lab: Lab) -> None:
    for slot, to, word in ((0, 0, "another"), (0, 9, "another"), (9, None, "no owner")):
        done = lab.edge.run_command(
            *("drain", str(slot), "--instance", lab.edge.instance, "--no-wait", "--hand-off"),
            *([] if to is None else ["--to", str(to)]),
        )
        assert done.returncode == 1
        assert word in done.stderr
    lab.edge.run_command("undrain", "0", "--instance", lab.edge.instance)
