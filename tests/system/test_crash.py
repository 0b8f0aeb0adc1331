"""What ends, what lives and what is repaired when processes are killed with -9."""

import os
import signal
from contextlib import suppress

import pytest

from system.lab import WHIP_URL, Lab, wait_until
from turnout.calling import Call, place_calls
from turnout.errors import CallError

pytestmark = pytest.mark.privileged


def _owner_of(lab: Lab, call: Call) -> int:
    session = call.report().session
    assert session is not None
    wanted = session.rsplit("/", 1)[1]
    sessions = lab.edge.api("GET", "/sessions")
    if isinstance(sessions, dict):
        sessions = sessions["sessions"]
    return next(int(one["owner"]) for one in sessions if one["id"] == wanted)


def _transceivers(lab: Lab) -> list[tuple[str, int]]:
    owners = lab.edge.status()["owners"]
    return [
        (owner["state"], owner["generation"]) for owner in owners if owner["kind"] == "transceiver"
    ]


def test_transceiver_killed_ends_its_own_calls_only_and_comes_back(lab: Lab) -> None:
    async def kill_one_of_two() -> tuple[int, int, int]:
        lost, kept = Call(WHIP_URL, tone=400), Call(WHIP_URL, tone=800)
        async with kept:
            try:
                await lost.connect()
                await kept.connect()
                await kept.talk(1)
                slot = _owner_of(lab, lost)
                assert slot != _owner_of(lab, kept)
                os.kill(lab.edge.pids()[f"transceiver-{slot}"], signal.SIGKILL)
                at_kill = kept.detector.tone_windows
                await kept.talk(3)
                heard = kept.detector.tone_windows - at_kill
                with suppress(CallError):  # its client may have noticed
                    await lost.talk(0.1)
            finally:
                # Its session is gone, and the edge says so.
                with pytest.raises(CallError, match=r"answered 4\d\d"):
                    await lost.hang_up()
        return slot, heard, kept.report().media.lost_back

    before = dict(enumerate(_transceivers(lab)))
    others = {name: pid for name, pid in lab.edge.pids().items() if name in {"run", "agent"}}
    slot, heard, lost_packets = lab.in_client(kill_one_of_two)
    assert heard >= 15
    assert lost_packets == 0
    wait_until(
        lambda: [state for state, _ in _transceivers(lab)] == ["active", "active"],
        "both transceivers active",
    )
    assert _transceivers(lab)[slot][1] == before[slot][1] + 1
    assert _transceivers(lab)[1 - slot] == before[1 - slot]
    reports = lab.in_client(lambda: place_calls(WHIP_URL, 2, duration=1.5))
    assert [report.error for report in reports] == [None, None]
    assert {name: lab.edge.pids()[name] for name in others} == others


def test_agent_killed_calls_go_on_and_it_comes_back(lab: Lab) -> None:
    async def kill_agent() -> tuple[int, int]:
        async with Call(WHIP_URL, tone=450) as call:
            await call.connect()
            await call.talk(1)
            at_kill = call.detector.tone_windows
            os.kill(lab.edge.pids()["agent"], signal.SIGKILL)
            await call.talk(4)
            heard = call.detector.tone_windows - at_kill
            # Its own session is still known to whoever serves the door now.
            await call.hang_up()
            return heard, call.report().media.lost_back

    before = lab.edge.pids()["agent"]
    heard, lost_packets = lab.in_client(kill_agent)
    assert heard >= 20
    assert lost_packets == 0
    assert lab.edge.pids()["agent"] != before
    assert lab.place_call(duration=1.5).error is None


@pytest.mark.parametrize("order", ["supervisor first", "supervisor last"])
def test_everything_killed_then_down_leaves_nothing(bare_lab: Lab, order: str) -> None:
    edge = bare_lab.edge
    edge.start()
    pids = edge.pids()
    assert set(pids) >= {"run", "agent", "transceiver-0", "transceiver-1"}
    names = sorted(pids, key=lambda name: (name == "run") == (order == "supervisor last"))
    for name in names:
        with suppress(ProcessLookupError):  # children die with the supervisor
            os.kill(pids[name], signal.SIGKILL)
    edge.wait_gone()
    assert any(one.startswith("pin") for one in edge.leftovers()), "nothing to take down"
    done = edge.run_command("down", "--instance", edge.instance, "--bpffs", str(edge.bpffs))
    assert done.returncode == 0, done.stderr
    assert edge.leftovers() == []
    again = edge.run_command("down", "--instance", edge.instance, "--bpffs", str(edge.bpffs))
    assert again.returncode == 0, "down is idempotent"


def test_everything_killed_the_next_run_takes_over_what_is_there(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start()
    edge.kill_all()
    edge.start()
    report = bare_lab.place_call(duration=1.5)
    assert report.error is None
    assert edge.stop() == 0
    assert edge.leftovers() == []
