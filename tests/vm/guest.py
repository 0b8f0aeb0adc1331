"""The service that the VM is booted for (image.py): runs the plan, switches off.

The plan is plan.json beside this file: a list of steps, each with `name`, `command` (an argument
vector), `timeout` in seconds and perhaps `required` (no step follows when it fails), written by
__main__.py. What steps print goes to the second serial port; each ends with a report, one line of
JSON after MARK, which machine.py collects.
Standard library only: this runs under the guest's own Python before anything else stands.
"""

import json
import os
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

MARK = "@@turnout "

# A step that is pytest writes its results here; another may write an object with values of its own
# to be told, or a list of results (results.py) that it has judged.
JUNIT = Path("/tmp/junit.xml")
VALUES = Path("/tmp/values.json")
RESULTS = Path("/tmp/results.json")


def main() -> None:
    """Run the plan; the machine ends whatever happens."""
    try:
        prepare()
        project = Path(__file__).resolve().parents[2]
        report(step="boot", seconds=uptime(), release=os.uname().release)
        for step in json.loads(Path(__file__).with_name("plan.json").read_text()):
            done = run_step(step, project)
            report(**done)
            if done["status"] and step.get("required"):
                break
        report(step="end", seconds=uptime())
    except Exception:  # noqa: BLE001 - the machine must end, and say why
        traceback.print_exc()
    finally:
        # With QEMU's -no-reboot this ends the machine at once; systemd would stop its units first.
        sys.stdout.flush()
        os.sync()
        Path("/proc/sysrq-trigger").write_text("b")
        time.sleep(60)


def prepare() -> None:
    """Have /tmp in memory and turn stdout to the second serial port; systemd did the rest."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    port = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)
    os.dup2(port, 1)
    os.dup2(port, 2)


def run_step(step: dict[str, Any], project: Path) -> dict[str, Any]:
    """Run one step and return its report: exit status, seconds, what it wrote for us."""
    for path in (JUNIT, VALUES, RESULTS):
        path.unlink(missing_ok=True)
    environment = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PATH": f"{project}/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start = time.monotonic()
    try:
        status = subprocess.run(
            step["command"],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=step["timeout"],
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        status = 124  # as timeout(1) has it
    done = {"step": step["name"], "status": status, "seconds": time.monotonic() - start}
    if JUNIT.exists():
        done |= read_counts(JUNIT)
    if VALUES.exists():
        done["values"] = json.loads(VALUES.read_text())
    if RESULTS.exists():
        done["results"] = json.loads(RESULTS.read_text())
    return done


def read_counts(junit: Path) -> dict[str, int]:
    """Return passed, failed and skipped of a JUnit file; a broken fixture counts as failed."""
    suites = ET.parse(junit).getroot().iter("testsuite")
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for suite in suites:
        total, failures, errors, skipped = (
            int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
        )
        counts["failed"] += failures + errors
        counts["skipped"] += skipped
        counts["passed"] += total - failures - errors - skipped
    return counts


def uptime() -> float:
    """Return seconds since the kernel started."""
    return float(Path("/proc/uptime").read_text().split()[0])


def report(**values: Any) -> None:
    """Tell the host."""
    sys.stdout.flush()
    sys.stdout.write(f"{MARK}{json.dumps(values)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
