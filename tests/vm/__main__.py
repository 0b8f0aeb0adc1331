"""`python -m vm SERIES`: a whole edge on Debian's own kernel, emulated (called by scripts/vm-test).

Ends with one line of JSON (see results.py). A plan of steps is run in the machine by guest.py; a
tier that wants more of it adds a step here.
"""

import argparse
import fcntl
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from results import Result, conclude
from vm.image import Plan, build_image
from vm.machine import run_machine
from vm.packages import VmError, find_kernel

PROJECT = Path(__file__).resolve().parents[2]

# Emulation is about ten times slower than the hardware; the bounds are there to end a hang.
LOAD_SECONDS = 120
EDGE_SECONDS = 300
SYSTEMD_SECONDS = 480
PROVISION_SECONDS = 60
TESTS_SECONDS = 600

LOAD_STEP: dict[str, Any] = {
    "name": "load",
    "command": ["env", "PYTHONPATH=tests", "python3", "-m", "vm.load"],
    "timeout": LOAD_SECONDS,
    "required": True,
}


# No network there: it must find that nothing is missing.
PROVISION_STEP: dict[str, Any] = {
    "name": "provision",
    "command": ["vagrant/provision.sh", "edge"],
    "timeout": PROVISION_SECONDS,
    "required": True,
}

EDGE_STEP: dict[str, Any] = {
    "name": "edge",
    "command": ["env", "PYTHONPATH=tests", "python3", "-m", "vm.edge"],
    "timeout": EDGE_SECONDS,
}

SYSTEMD_STEP: dict[str, Any] = {
    "name": "systemd",
    "command": ["env", "PYTHONPATH=tests", "python3", "-m", "vm.units"],
    "timeout": SYSTEMD_SECONDS,
}


def tests_step(directory: str) -> dict[str, Any]:
    """Return the step that runs pytest on `directory` and reports its counts."""
    pytest = (
        "python3 -m pytest -q --color=no --tb=short --maxfail=10 -p no:cacheprovider -o timeout=0"
    )
    # Races need CPUs that run at once; under emulation this file compiles for minutes instead.
    left_out = f"--ignore={directory}/test_many_cpus.py"
    return {
        "name": directory,
        "command": [*pytest.split(), "--junitxml=/tmp/junit.xml", left_out, directory],
        "timeout": TESTS_SECONDS,
    }


def judge(series: str, reports: list[dict[str, Any]]) -> list[Result]:
    """Turn the guest's reports into results."""
    results = []
    for report in reports:
        name, seconds = report["step"], round(report["seconds"], 1)
        if name == "boot":
            release = report["release"]
            met = release.startswith(f"{series}.")
            results += [Result("kernel", release, f"{series}.*", met), Result("boot, s", seconds)]
        elif name == "end":
            results.append(Result("whole run, s", seconds))
        else:
            status = report["status"]
            results.append(Result(f"{name}: exit status", status, "0", met=status == 0))
            results.append(Result(f"{name}: s", seconds))
            results += judge_counts(name, report)
            told = report.get("values", {}).items()
            results += [Result(f"{name}: {key}", value) for key, value in told]
            judged = [Result(**result) for result in report.get("results", [])]
            results += [replace(result, name=f"{name}: {result.name}") for result in judged]
    return results


def judge_counts(name: str, report: dict[str, Any]) -> list[Result]:
    """Turn a pytest step's counts into results: something ran, nothing failed."""
    if "passed" not in report:
        return []
    passed, failed, skipped = report["passed"], report["failed"], report["skipped"]
    return [
        Result(f"{name}: passed", passed, "at least 1", met=passed >= 1),
        Result(f"{name}: failed", failed, "0", met=failed == 0),
        Result(f"{name}: skipped", skipped),
    ]


def sum_counts(reports: list[dict[str, Any]], *, ok: bool) -> dict[str, int]:
    """Return the counts of all steps; whatever else went wrong counts as one failure."""
    names = ("passed", "failed", "skipped")
    counts = {name: sum(report.get(name, 0) for report in reports) for name in names}
    if not ok:
        counts["failed"] = max(1, counts["failed"])
    return counts


def main() -> int:
    """Build, boot, judge; returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/vm-test", description=__doc__)
    parser.add_argument("series", nargs="?", default="6.1", help="kernel series (default: 6.1)")
    parser.add_argument("--command", help="run this in the VM instead of the tests")
    parser.add_argument("--report", type=Path, metavar="FILE", help="leave the counts here")
    parser.add_argument("--build-only", action="store_true", help="only fill the cache")
    options = parser.parse_args()
    plan: Plan = [
        *(PROVISION_STEP, LOAD_STEP, EDGE_STEP, SYSTEMD_STEP),
        tests_step("tests/datapath"),
    ]
    if options.command:
        command = shlex.split(options.command)
        plan = [{"name": "command", "command": command, "timeout": TESTS_SECONDS}]
    cache = PROJECT / ".cache" / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    reports: list[dict[str, Any]] = []
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            kernel = find_kernel(options.series)
            image = build_image(kernel, PROJECT, cache, plan, say)
            if options.build_only:
                return 0
            say(f"booting Linux {kernel.release} ({kernel.version}), emulated")
            bound = 60 + sum(step["timeout"] for step in plan)
            reports = run_machine(image, cache / "console.log", bound)
            results = judge(options.series, reports)
        except VmError as error:
            say(str(error))
            results = [Result("virtual machine", str(error).splitlines()[0], "runs", met=False)]
    ok = conclude(results)
    if options.report:
        options.report.write_text(json.dumps(sum_counts(reports, ok=ok)))
    return 0 if ok else 1


START = time.monotonic()


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"vm {time.monotonic() - START:5.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
