"""`turnout upgrade`: to another program ten times, over an ABI change and back, to a broken one."""

import subprocess
from pathlib import Path

from chaos.row import Row
from chaos.stage import Stage
from results import Result
from system.otherversion import another_abi, another_program, another_version, upgrade_command

UPGRADES = 10
_PATIENCE_SECONDS = 120.0


def ten_times(stage: Stage) -> list[Result]:
    """Upgrade to ten programs, one after the other."""
    directory = _directory(stage)
    ended = [
        _upgrade(stage, another_program(directory / f"program{number}", number))
        for number in range(UPGRADES)
    ]
    return [_codes(ended, 0)]


def change_abi(stage: Stage) -> list[Result]:
    """Upgrade to maps of another layout, and back."""
    directory = _directory(stage)
    counted = stage.edge.counters()
    versions = another_abi(directory / "next"), another_version(directory / "back")
    ended = [_upgrade(stage, sources) for sources in versions]
    stage.until_whole()
    now = stage.edge.counters()
    made = sum(now[name] - counted[name] for name in ("flow__learned", "flow__healed"))
    return [
        _codes(ended, 0),
        Result("flows made anew", made, "0", made == 0),
    ]


def refuse(stage: Stage) -> list[Result]:
    """Upgrade to a program that the verifier refuses."""
    broken = ("steer.c", "verdict = parse(p);", "verdict = parse(p) + *(int *)p->data;")
    pids = stage.edge.pids()
    ended = _upgrade(stage, another_version(_directory(stage) / "broken", broken))
    says = "what ran before runs on" in ended.stderr
    return [
        _codes([ended], 1),
        Result("says that what ran before runs on", says, "True", says),
        Result("no process ended", stage.edge.pids() == pids, "True", stage.edge.pids() == pids),
    ]


def _directory(stage: Stage) -> Path:
    directory = stage.edge.bpffs.parent / "versions"
    directory.mkdir(exist_ok=True)
    return directory


def _upgrade(stage: Stage, sources: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        upgrade_command(stage.edge, sources),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )


def _codes(ended: list[subprocess.CompletedProcess[str]], wanted: int) -> Result:
    codes = [one.returncode for one in ended]
    words = [one.stderr.strip().splitlines()[-1:] for one in ended if one.returncode != wanted]
    value = f"{codes} {words[0]}" if words else f"{len(codes)} x {wanted}"
    return Result("upgrades ended with", value, str(wanted), not words)


ROWS = (
    Row("upgrade-x10", "`turnout upgrade` to ten other programs in a row", ten_times, gap_ms=40),
    Row("abi-change", "`turnout upgrade` to maps of another layout, and back", change_abi),
    Row("refused-program", "`turnout upgrade` to a program that does not load", refuse, gap_ms=40),
)
