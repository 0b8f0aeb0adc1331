"""Drain and undrain under real calls and numbered packets: nothing of what goes on is lost."""

import asyncio
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from system.edge_process import ApiCallFailed, EdgeProcess
from system.lab import WHIP_URL, Lab, wait_until
from system.namespaces import run_in_namespace
from system.raw import RawClient, RawSession, add_session, raw_client, raw_owner
from system.whip_caller import whip_call
from turnout.calling import Call
from turnout.errors import CallError
from turnout.wire.sdp import IceCredentials
from turnout.wire.sdpfrag import IceFragment
from unit.patience import until

pytestmark = pytest.mark.privileged

OFFER = Path(__file__).parents[1] / "vectors" / "offers" / "chromium-audio.sdp"
CADENCE_S = 0.02
SESSIONS = 50


@pytest.fixture(autouse=True)
def both_active(lab: Lab) -> Iterator[None]:
    """Leave the module's edge as it was found."""
    yield
    for drain in lab.edge.api("GET", "/drains"):
        lab.edge.api("DELETE", f"/owners/{drain['slot']}/drain")


@asynccontextmanager
async def draining(
    edge: EdgeProcess, slot: int, *arguments: str
) -> AsyncIterator["subprocess.Popen[str]"]:
    """Run `turnout drain` in the background, from when the owner drains."""
    process = subprocess.Popen(  # noqa: ASYNC220 - returns when the fork has happened
        edge.command("drain", str(slot), "--instance", edge.instance, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        await until(lambda: edge.api("GET", "/drains") != [] or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


def owner_of(edge: EdgeProcess, resource: str | None) -> int:
    assert resource is not None
    sessions = edge.api("GET", "/sessions")
    return next(int(one["owner"]) for one in sessions if resource.endswith(one["id"]))


def owners(edge: EdgeProcess) -> list[Any]:
    """Return the owners by slot: the API names them in the order in which they came."""
    return sorted(edge.api("GET", "/owners"), key=lambda owner: int(owner["slot"]))


def states(edge: EdgeProcess) -> list[str]:
    return [owner["state"] for owner in owners(edge)]


def post_offer(lab: Lab) -> tuple[int, dict[str, str]]:
    """POST an offer that nobody follows up on; returns status and headers."""

    def post() -> tuple[int, dict[str, str]]:
        request = urllib.request.Request(
            WHIP_URL, OFFER.read_bytes(), {"Content-Type": "application/sdp"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers)

    return run_in_namespace(lab.namespaces.client, post)


def test_call_of_a_draining_owner_goes_on_and_the_drain_ends_with_it(lab: Lab) -> None:
    edge = lab.edge

    async def drain_under_the_call() -> tuple[int, int, tuple[int, str]]:
        async with Call(WHIP_URL, tone=400) as old:
            await old.connect()
            await old.talk(1)
            slot = owner_of(edge, old.report().session)
            at_drain = old.detector.tone_windows
            async with draining(edge, slot, "--deadline", "10m") as process:
                for _ in range(3):  # by load alone, one of them would be its
                    async with Call(WHIP_URL, tone=800) as new:
                        await new.connect()
                        assert owner_of(edge, new.report().session) == 1 - slot
                await old.talk(1.5)
                status = ("status", "--instance", edge.instance)
                shown = await asyncio.to_thread(edge.run_command, *status)
                assert f"owner {slot}: drains, 1 sessions left, ended in 9 min" in shown.stdout
                assert states(edge)[slot] == "draining"
                await old.hang_up()
                ended = await asyncio.to_thread(finished, process)
            heard = old.detector.tone_windows - at_drain
            return heard, old.report().media.lost_back, ended

    heard, lost, (code, output) = lab.in_client(drain_under_the_call)
    assert heard >= 15
    assert lost == 0
    assert (code, output.splitlines()[-1][-15:]) == (0, " drained, empty"), output
    (drain,) = edge.api("GET", "/drains")
    assert (drain["ended"], drain["sessions_ended"]) == ("empty", 0)
    done = edge.run_command("undrain", str(drain["slot"]), "--instance", edge.instance)
    assert (done.returncode, states(edge)) == (0, ["active", "active"]), done.stderr


def test_call_of_a_draining_owner_restarts_ice(lab: Lab) -> None:
    async def restart() -> tuple[int, float | None]:
        async with whip_call(WHIP_URL, 550) as caller:
            slot = owner_of(lab.edge, caller.resource)
            lab.edge.api("POST", f"/owners/{slot}/drain", {"deadline_seconds": 600})
            ours = IceFragment(IceCredentials("aiortcagain", "p" * 24))
            status, text, _ = await caller.patch(str(ours), "*")
            caller.take_over(ours, IceFragment.parse(text))
            round_trip = await caller.check()
            await caller.hear(10)
            await caller.delete()
            return status, round_trip

    status, round_trip = lab.in_client(restart)
    assert status == 200
    assert round_trip is not None


def test_deadline_ends_the_call_and_its_client_is_told(lab: Lab) -> None:
    edge = lab.edge

    async def outstay() -> tuple[int, tuple[int, str], str]:
        call = Call(WHIP_URL, tone=700)
        try:
            await call.connect()
            slot = owner_of(edge, call.report().session)
            async with draining(edge, slot, "--deadline", "2") as process:
                # BYE and DTLS' close_notify, at once: not the silence that takes a client 15 s.
                with pytest.raises(CallError, match="the other side ended the call"):
                    await call.talk(10)
                ended = await asyncio.to_thread(finished, process)
        finally:
            with pytest.raises(CallError, match="answered 410") as refused:
                await call.hang_up()
        return slot, ended, str(refused.value)

    slot, (code, output), refusal = lab.in_client(outstay)
    assert (code, output.splitlines()[-1]) == (
        0,
        f"owner {slot}: drained, the deadline ended 1 sessions",
    )
    assert "drained" in refusal
    assert edge.transceiver(slot)["sessions"] == []


def test_all_owners_draining_is_503_with_retry_after(lab: Lab) -> None:
    for slot in (0, 1):
        lab.edge.api("POST", f"/owners/{slot}/drain", {"deadline_seconds": 600})
    status, headers = post_offer(lab)
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    lab.edge.api("DELETE", "/owners/1/drain")
    status, headers = post_offer(lab)
    assert status == 201
    (session,) = lab.edge.api("GET", "/sessions")
    assert session["owner"] == 1
    assert headers["Location"].endswith(session["id"])


def test_transceiver_that_is_started_anew_is_drained_no_more(lab: Lab) -> None:
    edge = lab.edge
    before = owners(edge)[0]["generation"]
    edge.api("POST", "/owners/0/drain", {"deadline_seconds": 600})
    os.kill(edge.pids()["transceiver-0"], signal.SIGKILL)
    wait_until(lambda: edge.api("GET", "/drains") == [], "the drain is over", 30)
    owner = owners(edge)[0]
    assert (owner["state"], owner["generation"]) == ("active", before + 1)


class Stream:
    """Numbered packets of many sessions to one owner, every 20 ms, each to be found again."""

    def __init__(self) -> None:
        self.lines: list[tuple[RawSession, RawClient]] = []
        self.sent: Counter[tuple[int, int]] = Counter()
        self._packet = 0

    def join(self, session: RawSession, client: RawClient) -> None:
        """Send for this session from now on: a check first, which makes the flow."""
        client.send(session.build_check(0))
        self.lines.append((session, client))

    def run(self, rounds: int) -> None:
        due = time.monotonic()
        for _ in range(rounds):
            self._packet += 1
            for session, client in self.lines:
                client.send(session.build_media(self._packet))
                self.sent[session.number, self._packet] += 1
            due = max(due + CADENCE_S, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


def test_numbered_packets_through_drain_agent_restart_and_undrain_all_arrive(lab: Lab) -> None:
    edge, stream, arrived = lab.edge, Stream(), Counter[tuple[int, int]]()
    with ExitStack() as stack:
        owner = stack.enter_context(raw_owner(lab, 20500))

        def client(number: int) -> RawClient:
            return stack.enter_context(raw_client(lab, (4, 6)[number % 2]))

        def collect() -> None:
            arrived.update(
                (one.session, one.packet) for one in owner.drain() if one.kind == "media"
            )

        def send(rounds: int) -> None:
            for _ in range(rounds):
                stream.run(1)
                collect()

        sessions = [add_session(edge, number, owner) for number in range(SESSIONS)]
        for session in sessions:
            stream.join(session, client(session.number))
        send(20)
        edge.api("POST", f"/owners/{owner.slot}/drain", {"deadline_seconds": 600})
        with pytest.raises(ApiCallFailed, match="409"):
            add_session(edge, SESSIONS, owner)
        send(20)
        stream.join(sessions[0], client(SESSIONS))  # a client that moves: a new flow
        send(20)
        os.kill(edge.pids()["agent"], signal.SIGKILL)
        send(100)
        wait_until(lambda: _drains(edge) != [], "the next agent drains", 30)
        assert _drains(edge)[0] | {"seconds_left": 0} == {
            "slot": owner.slot,
            "sessions": SESSIONS,
            "seconds_left": 0,
            "ended": "",
            "sessions_ended": 0,
        }
        send(20)
        edge.api("DELETE", f"/owners/{owner.slot}/drain")
        send(20)

        def is_complete() -> bool:
            collect()
            return arrived == stream.sent

        wait_until(is_complete, "every packet is there")
    assert sum(stream.sent.values()) == 200 * SESSIONS + 160
    assert stream.sent - arrived == Counter()


def _drains(edge: EdgeProcess) -> Any:
    try:
        return edge.api("GET", "/drains")
    except (OSError, ApiCallFailed):
        return []


# --- the end of `turnout run`: each with an edge of its own


def test_sigterm_drains_first_and_ends_when_the_last_call_has(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start("--drain-on-stop", "600", transceivers=1)

    async def stop_under_the_call() -> int:
        async with Call(WHIP_URL, tone=450) as call:
            await call.connect()
            os.kill(edge.pids()["run"], signal.SIGTERM)
            await until(lambda: edge.said("drains: 1 sessions left"))
            before = call.detector.tone_windows
            await call.talk(2)
            assert post_offer(bare_lab)[0] == 503
            return call.detector.tone_windows - before

    assert bare_lab.in_client(stop_under_the_call) >= 15
    edge.wait_gone()
    assert edge.said("drained: empty")
    assert edge.leftovers() == []


def test_second_signal_stops_now_and_clients_are_told(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start("--drain-on-stop", "600", transceivers=1)

    async def stop_twice() -> None:
        call = Call(WHIP_URL, tone=450)
        try:
            await call.connect()
            # It drains only what it knows to be up, and it may look later than we do.
            await until(lambda: edge.said("WHIP at http://"))
            os.kill(edge.pids()["run"], signal.SIGTERM)
            await until(lambda: edge.said("drains for up to 600 s"))
            os.kill(edge.pids()["run"], signal.SIGTERM)
            with pytest.raises(CallError, match="the other side ended the call"):
                await call.talk(20)
        finally:
            with pytest.raises(CallError):
                await call.hang_up()

    bare_lab.in_client(stop_twice)
    edge.wait_gone()
    assert edge.leftovers() == []


def test_down_says_that_it_drains_and_the_deadline_ends_the_call(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start("--drain-on-stop", "2", transceivers=1)
    arguments = ("down", "--instance", edge.instance, "--bpffs", str(edge.bpffs))

    async def outstay() -> subprocess.CompletedProcess[str]:
        call = Call(WHIP_URL, tone=450)
        try:
            await call.connect()
            going_down = asyncio.create_task(asyncio.to_thread(edge.run_command, *arguments))
            with pytest.raises(CallError, match="the other side ended the call"):
                await call.talk(20)
            return await going_down
        finally:
            with pytest.raises(CallError):
                await call.hang_up()

    done = bare_lab.in_client(outstay)
    assert done.returncode == 0, done.stderr
    assert "drains for up to 2 s (drain_on_stop)" in done.stdout.splitlines()[0]
    assert edge.said("drained; 1 sessions were ended by the deadline")
    assert edge.leftovers() == []


@pytest.mark.parametrize("how", ["Ctrl-C", "down --now"])
def test_stop_that_waits_for_nobody_does_not_drain(bare_lab: Lab, how: str) -> None:
    edge = bare_lab.edge
    edge.start("--drain-on-stop", "600", transceivers=1)
    assert post_offer(bare_lab)[0] == 201  # a session that would be waited for
    if how == "Ctrl-C":
        os.kill(edge.pids()["run"], signal.SIGINT)
    else:
        done = edge.run_command(
            "down", "--now", "--instance", edge.instance, "--bpffs", str(edge.bpffs)
        )
        assert "drains" not in done.stdout
    edge.wait_gone()
    assert not edge.said("drains for up to")
    assert edge.leftovers() == []
