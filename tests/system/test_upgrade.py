"""`turnout upgrade` under steady traffic: nothing is lost, whatever becomes of it."""

import subprocess
from pathlib import Path

import pytest

from system.lab import SHARED_PORT, Lab, wait_until
from system.otherversion import another_abi, another_program, another_version, upgrade_command
from system.raw import add_session, raw_client, raw_owner
from system.steady import steady_traffic
from turnout.kernel import bpf
from turnout.kernel.pins import PROGRAMS, SOURCES_VARIABLE, Pins, abi_version

# Each upgrade compiles.
pytestmark = [pytest.mark.privileged, pytest.mark.timeout(900)]

UPGRADES = 3  # scripts/chaos has ten
FLOWS = 20
PATIENCE_S = 180.0
# Where a kill comes while an upgrade goes on, before or after a step of it.
IN_PLACE = (
    "turnout.kernel.loader:_test:before",
    "turnout.kernel.loader:_pin:after",
    "turnout.kernel.swap:replace_filter:before",
    "turnout.kernel.swap:Swap.run:after",
    "turnout.upgrading:_end_agent:before",
    "turnout.upgrading:_end_agent:after",
)
OTHER_ABI = (
    "turnout.kernel.loader:_pin:after",
    "turnout.upgrading:_end_agent:after",
    "turnout.upgrading:_finish:after",
    "turnout.kernel.swap:Swap.run:before",
    "turnout.kernel.swap:replace_filter:before",
    "turnout.kernel.swap:Swap.run:after",
    "turnout.kernel.carry:Flows.merge:after",
)


def _upgrade(lab: Lab, sources: Path, kill: str = "") -> subprocess.CompletedProcess[str]:
    command = upgrade_command(lab.edge, sources)
    if kill:
        at = command.index("turnout")
        command[at - 1 : at + 1] = ["-m", "system.killed", kill]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def _programs(lab: Lab) -> list[str]:
    """What is pinned, of every version."""
    root = Pins(lab.edge.bpffs, lab.edge.instance).root
    return sorted(str(path.relative_to(root)) for path in root.glob("*/programs/*"))


def _running(lab: Lab) -> set[int]:
    """The ids of the XDP programs that are attached."""
    pins = Pins(lab.edge.bpffs, lab.edge.instance)
    found = set()
    for link in pins.links():
        with bpf.open_pin(link) as fd:
            found.add(bpf.link_program(fd))
    return found


def _check_new_call(lab: Lab) -> None:
    """A session that is made now is steered in and out."""
    with raw_owner(lab, 20700) as owner, raw_client(lab) as client:
        session = add_session(lab.edge, 900, owner)
        client.send(session.build_check(1))
        assert owner.receive(1)[0].session == 900
        owner.send(session.build_media(2), client.address)
        assert client.receive()[1][1] == SHARED_PORT


def test_upgrades_in_a_row_lose_nothing(lab: Lab, tmp_path: Path) -> None:
    seen = {frozenset(_running(lab))}
    with steady_traffic(lab, FLOWS) as steady:
        for number in range(UPGRADES):
            done = _upgrade(lab, another_program(tmp_path / str(number), number))
            assert done.returncode == 0, done.stderr
            seen.add(frozenset(_running(lab)))
        assert lab.edge.status()["verdicts_add_up"]
    assert (steady.lost_in, steady.lost_back) == (0, 0), steady.packets
    assert len(seen) == UPGRADES + 1
    assert len(_programs(lab)) == len(PROGRAMS)
    _check_new_call(lab)


def test_upgrade_over_an_abi_change_and_back_carries_everything(lab: Lab, tmp_path: Path) -> None:
    abi = abi_version()
    counted = lab.edge.counters()
    learned = 0
    with steady_traffic(lab, FLOWS) as steady:
        for sources in (another_abi(tmp_path / "next"), another_version(tmp_path / "back")):
            done = _upgrade(lab, sources)
            assert done.returncode == 0, done.stderr
            now = lab.edge.counters()
            assert all(now[name] >= count for name, count in counted.items() if name in now)
            counted = now
            wait_until(lambda: lab.edge.status()["verdicts_add_up"], "the verdicts add up")
            learned = now["flow__learned"] + now["flow__healed"]
    assert (steady.lost_in, steady.lost_back) == (0, 0), steady.packets
    # Carried, not learned or healed anew.
    assert counted["flow__learned"] + counted["flow__healed"] == learned
    assert {Path(name).parts[0] for name in _programs(lab)} == {f"abi{abi}"}
    _check_new_call(lab)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("steer.c", "verdict = parse(p);", "verdict = parse(p) + *(int *)p->data;"), "ingress"),
        (("steer.c", "int ingress(", "int ingress()) ("), "clang refused"),
        (("handover.h", "p->lane", "p->lane + 1"), "self-test: a check"),
    ],
    ids=["verifier", "compiler", "self-test"],
)
def test_program_that_is_refused_changes_nothing_and_says_why(
    lab: Lab, tmp_path: Path, change: tuple[str, str, str], reason: str
) -> None:
    before = _running(lab), _programs(lab), lab.edge.pids()
    with steady_traffic(lab, FLOWS) as steady:
        done = _upgrade(lab, another_version(tmp_path / "broken", change))
    assert done.returncode == 1
    assert "what ran before runs on" in done.stderr
    assert reason in done.stderr
    assert (_running(lab), _programs(lab), lab.edge.pids()) == before
    assert (steady.lost_in, steady.lost_back) == (0, 0), steady.packets


@pytest.mark.parametrize("kill", IN_PLACE)
def test_upgrade_killed_at_a_step_goes_on_with_the_next(
    lab: Lab, tmp_path: Path, kill: str
) -> None:
    _kill_and_go_on(lab, another_program(tmp_path / "other", hash(kill)), kill)


@pytest.mark.parametrize("kill", OTHER_ABI)
def test_upgrade_to_another_abi_killed_at_a_step_goes_on_with_the_next(
    lab: Lab, tmp_path: Path, kill: str
) -> None:
    running = _running_abi(lab)
    _kill_and_go_on(lab, another_abi(tmp_path / "other", running + 1 - abi_version()), kill)
    assert {Path(name).parts[0] for name in _programs(lab)} == {f"abi{running + 1}"}


def test_run_over_what_a_killed_edge_of_another_abi_left_takes_it_over(
    bare_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = bare_lab
    lab.edge.start()
    for _ in range(2):
        _check_new_call(lab)
    learned = lab.edge.counters()["flow__learned"]
    lab.edge.kill_all()
    monkeypatch.setenv(SOURCES_VARIABLE, str(another_abi(tmp_path / "other")))

    lab.edge.start()

    assert lab.edge.said("carried over from another ABI: ")
    assert lab.edge.counters()["flow__learned"] == learned == 2
    assert {Path(name).parts[0] for name in _programs(lab)} == {f"abi{abi_version() + 1}"}
    _check_new_call(lab)
    assert (lab.edge.stop(), lab.edge.leftovers()) == (0, [])


def _running_abi(lab: Lab) -> int:
    return max(int(Path(name).parts[0].removeprefix("abi")) for name in _programs(lab))


def _kill_and_go_on(lab: Lab, sources: Path, kill: str) -> None:
    with steady_traffic(lab, FLOWS) as steady:
        killed = _upgrade(lab, sources, kill)
        assert killed.returncode == -9, killed.stderr
        # With whatever is there the edge takes new calls, before anybody goes on.
        wait_until(lambda: _answers(lab), "an agent answers", 60)
        _check_new_call(lab)
        done = _upgrade(lab, sources)
        assert done.returncode == 0, done.stderr
        assert lab.edge.status()["interfaces"]
    assert (steady.lost_in, steady.lost_back) == (0, 0), steady.packets
    assert len(_programs(lab)) == len(PROGRAMS)
    _check_new_call(lab)


def _answers(lab: Lab) -> bool:
    try:
        return bool(lab.edge.status()["interfaces"])
    except OSError:
        return False
