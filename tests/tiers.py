"""`python -m tiers [TIER...] [-- PYTEST ARGUMENTS]`: runs the tests (called by scripts/test).

Tiers run in order, cheap ones first, and all of them, whatever fails. A tier fails when a test
does, when its time is over or when nothing of it ran: "everything skipped" proves nothing. At the
end the machine must be as it was. The last line sums up: "N passed, N failed, N skipped".
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from leftovers import left_since, look
from vm.guest import read_counts

PROJECT = Path(__file__).resolve().parents[1]
REPORTS = PROJECT / ".cache" / "tests"

# A tier that is interrupted takes its namespaces and programs down; then it is killed.
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Tier:
    """A part of the tests and the seconds it may take."""

    name: str
    seconds: float

    @property
    def report(self) -> Path:
        """Where it leaves its counts."""
        return REPORTS / f"{self.name}.{'json' if self.name == 'vm' else 'xml'}"

    def command(self, arguments: list[str]) -> list[str]:
        """Return what runs it, with extra arguments for pytest."""
        if self.name == "vm":
            return [sys.executable, "-m", "vm", "6.1", "--report", str(self.report)]
        pytest = [sys.executable, "-m", "pytest", "-q", "-o", "cache_dir=.cache/pytest"]
        # Its tests wait more than they work, each file in laboratories of its own.
        spread = ["-n", "2", "--dist", "loadfile"] if self.name == "system" else []
        return [*pytest, *spread, f"--junitxml={self.report}", f"tests/{self.name}", *arguments]


TIERS = (
    Tier("unit", 300),
    Tier("datapath", 300),
    Tier("system", 1200),
    Tier("interop", 600),
    Tier("vm", 900),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a tier went. `failed` is at least 1 if it is not `ok`, whatever the reason."""

    tier: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    note: str


def run_tier(tier: Tier, arguments: list[str]) -> Outcome:
    """Run one tier to its end or to the end of its time."""
    print(f"\n== {tier.name}", flush=True)
    tier.report.unlink(missing_ok=True)
    started = time.monotonic()
    # A session of its own: what a test leaves running is ended with it.
    process = subprocess.Popen(tier.command(arguments), cwd=PROJECT, start_new_session=True)
    try:
        status = process.wait(tier.seconds)
        note = f"exit status {status}" if status else ""
    except subprocess.TimeoutExpired:
        note = f"not done after {tier.seconds:.0f} s"
    finally:
        end_session(process)
    counts = read_report(tier)
    if not note and not counts["passed"]:
        note = "nothing ran"
    if note:
        counts["failed"] = max(1, counts["failed"])
    return Outcome(tier=tier.name, seconds=time.monotonic() - started, note=note, **counts)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the process, as Ctrl-C would; kill what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"no end {PATIENCE_SECONDS:.0f} s after SIGINT: killed", flush=True)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def read_report(tier: Tier) -> dict[str, int]:
    """Return passed, failed and skipped; zeros when the tier got nowhere."""
    if not tier.report.exists():
        return {"passed": 0, "failed": 0, "skipped": 0}
    if tier.report.suffix == ".xml":
        return read_counts(tier.report)
    counts: dict[str, int] = json.loads(tier.report.read_text())
    return counts


def conclude(outcomes: list[Outcome], left: list[str]) -> bool:
    """Print the closing table and the sum; return whether all is well."""
    print(f"\n{'tier':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for outcome in outcomes:
        numbers = f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}"
        print(f"{outcome.tier:<10}{numbers}{outcome.seconds:>9.1f}  {outcome.note or 'ok'}")
    for line in left:
        print(f"left on this machine: {line}")
    failed = sum(outcome.failed for outcome in outcomes) + (1 if left else 0)
    passed = sum(outcome.passed for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return failed == 0


def main() -> int:
    """Run the tiers that are named, or all."""
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    named, for_pytest = arguments[:cut], arguments[cut + 1 :]
    known = [tier.name for tier in TIERS]
    for name in named:
        if name not in known:
            print(f"scripts/test: {name!r} is no tier; there are {', '.join(known)}")
            return 2
    # SIGTERM ends a tier as Ctrl-C does: what it set up is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    REPORTS.mkdir(parents=True, exist_ok=True)
    before = look()
    chosen = [tier for tier in TIERS if not named or tier.name in named]
    outcomes = [run_tier(tier, for_pytest) for tier in chosen]
    return 0 if conclude(outcomes, left_since(before, look)) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("scripts/test: interrupted")
