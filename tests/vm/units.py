"""In the guest: an edge that systemd keeps up, by the units that `turnout units --install` writes.

Everything of edge.py's network, with one call that lasts while the agent is killed and while it
hangs. Run by guest.py as a step; what is found goes to RESULTS with its bounds.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from leftovers import left_since, look
from live.account import describe, difference
from live.call import HEARD_SHARE
from results import Result, print_results
from system.namespaces import command
from turnout.kernel.facts.processes import Process, read_processes
from turnout.settings import Settings
from turnout.settings.file import DEFAULT_FILE
from vm.edge import CARD, CLIENT, VIPS, WHIP, ask, client_network, turnout
from vm.guest import RESULTS

AGENT = "turnout-agent.service"
TRANSCEIVERS = ("turnout-transceiver@0.service", "turnout-transceiver@1.service")
UNITS = ("turnout.service", "turnout-loader.service", AGENT, TRANSCEIVERS[0])
FILE = f"""\
interface = "{CARD}"
vip = {json.dumps(VIPS)}
xdp_mode = "native"
http = "{WHIP}"
drain_on_stop = 1
"""

# Emulated: bounds that only end a hang.
START_SECONDS = 300
CHANGE_SECONDS = 120
CALL_SECONDS = 45


class StepFailed(Exception):
    """What the step waited for did not come, or a command failed; the message says which."""


def main() -> int:
    """Do all of it, leave the results for guest.py; return 0 if every bound is met."""
    results: list[Result] = []
    before = look_further()
    try:
        with client_network():
            run(results)
    except (StepFailed, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"vm.units: {error}", flush=True)
        results.append(Result("run", str(error).splitlines()[0], "no error", met=False))
        print(command("journalctl", "--no-pager", "-o", "cat", "-n", "60"), flush=True)
        stop()
    left = left_since(before, look_further)
    results.append(Result("left behind", "; ".join(left) or "nothing", "nothing", met=not left))
    print_results(results)
    RESULTS.write_text(json.dumps([asdict(result) for result in results]))
    return 0 if all(result.met for result in results) else 1


def look_further() -> set[str]:
    """Return what is here of ours, programs that nothing but memory holds and units included."""
    programs = json.loads(command("bpftool", "-j", "prog", "show"))
    ours = {f"{p['type']} program {p['id']}" for p in programs if p["type"] in ("xdp", "sched_cls")}
    states = ("--state=active", "--state=activating", "--state=failed", "--no-legend", "--plain")
    units = systemctl("list-units", "turnout*", *states).splitlines()
    return {*look(), *ours, *units}


def run(results: list[Result]) -> None:
    """Install, start, break, reload, stop; what is found is added to `results` as it is found."""
    write_settings(transceivers=1)
    installed = turnout("units", "--install")
    if installed.returncode:
        raise StepFailed(f"turnout units --install: {installed.stderr.strip()}")
    results.append(
        timed("started, s", lambda: systemctl("start", "turnout", seconds=START_SECONDS))
    )
    results += [judge_unit(unit) for unit in UNITS]
    results += judge_processes()
    before = ask("status")["counters"]
    transceiver = main_pid(TRANSCEIVERS[0])
    with start_call() as call:
        wait_until("the call's packets are steered", lambda: steered() > before["steered__rtp"])
        results.append(timed("agent back after kill -9, s", lambda: break_agent(signal.SIGKILL)))
        results.append(timed("agent back after SIGSTOP, s", lambda: break_agent(signal.SIGSTOP)))
        report = end_call(call)
    rose = difference(before, ask("status")["counters"])
    print("\n".join(f"  {line}" for line in describe(rose)), flush=True)
    results += judge_call(report, rose["steered__rtp"])
    same = main_pid(TRANSCEIVERS[0]) == transceiver
    results.append(Result("transceiver ran on", same, "True", met=same))
    write_settings(transceivers=2)
    results.append(timed("reloaded, s", lambda: systemctl("reload", "turnout")))
    results += [judge_unit(unit) for unit in (*UNITS, TRANSCEIVERS[1])]
    results.append(timed("stopped, s", stop))


def write_settings(transceivers: int) -> None:
    """Write the settings file that the units read."""
    DEFAULT_FILE.parent.mkdir(exist_ok=True)
    DEFAULT_FILE.write_text(f"{FILE}transceivers = {transceivers}\n")


def judge_unit(unit: str) -> Result:
    """Ask systemd whether a unit is up."""
    state = show(unit, "ActiveState")
    return Result(unit, state, "active", met=state == "active")


def judge_processes() -> list[Result]:
    """Compare who the processes are, and what they may, with what they need."""
    wanted = {
        "agent": "root, CAP_BPF CAP_NET_ADMIN",
        "transceiver-0": "nobody, no capability",
    }
    found = {process.name: process for process in read_processes(Settings().runtime)}
    results = []
    for name, bound in wanted.items():
        process = found.get(name)
        value = "is not there" if process is None else describe_process(process)
        results.append(Result(name, value, bound, met=value == bound))
    return results


def describe_process(process: Process) -> str:
    """Return its user and capabilities, and whatever else should not be."""
    unit = AGENT if process.name == "agent" else TRANSCEIVERS[0]
    surplus = {
        "may gain privilege": process.may_gain,
        "has a compiler": process.has_compiler,
        "is not its unit's main process": main_pid(unit) != process.pid,
    }
    capabilities = " ".join(sorted(process.capabilities)) or "no capability"
    return ", ".join(
        [process.user, capabilities, *(name for name, is_so in surplus.items() if is_so)]
    )


def break_agent(number: signal.Signals) -> None:
    """Send the agent a signal and wait until another one serves."""
    broken = main_pid(AGENT)
    systemctl("kill", "--kill-whom=main", f"--signal={number.name}", AGENT)
    wait_until(
        f"the agent is replaced after {number.name}",
        lambda: main_pid(AGENT) not in (0, broken) and show(AGENT, "ActiveState") == "active",
    )


def start_call() -> subprocess.Popen[str]:
    """Place a call from the client's namespace that lasts through what follows."""
    call = ["call", f"http://{WHIP}/whip", "--duration", str(CALL_SECONDS), "--json"]
    return subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{CLIENT}", sys.executable, "-m", "turnout", *call],
        stdout=subprocess.PIPE,
        text=True,
    )


def end_call(call: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the call's end; return its report (turnout/calling/report.py)."""
    told, _ = call.communicate(timeout=CALL_SECONDS + CHANGE_SECONDS)
    try:
        report: dict[str, Any] = json.loads(told)["calls"][0]
    except ValueError as error:
        raise StepFailed(f"the call ended with {call.returncode} and without a report") from error
    print(json.dumps(report), flush=True)
    return report


def judge_call(report: dict[str, Any], rose: int) -> list[Result]:
    """Judge what the accidents did to the call: nothing.

    Where emulation is slow it ends while there is no agent, which its last request is told of.
    """
    media, tone = report["media"], report["tone"]
    heard = f"{tone['hz']} Hz in {tone['heard']} of {tone['windows']} windows"
    enough = tone["heard"] >= HEARD_SHARE * tone["windows"] > 0
    lost = media["lost_back"] + (media["lost_out"] or 0)
    return [
        Result("call", report["error"] or "went well"),
        Result("tone", heard, f"in {HEARD_SHARE:.0%}", met=enough),
        Result("packets lost", lost, "0", met=lost == 0 and media["received"] > 0),
        Result("media steered", rose, f"at least {media['sent']}", met=rose >= media["sent"] > 0),
    ]


def steered() -> int:
    """Return how many packets of media the kernel has steered, by the agent."""
    count: int = ask("status")["counters"]["steered__rtp"]
    return count


def stop() -> None:
    """Stop the edge; the loader is named because what is asked for is waited for."""
    systemctl("stop", "turnout", "turnout-loader")


def timed(name: str, action: Callable[[], object]) -> Result:
    """Do it; return how long it took."""
    start = time.monotonic()
    action()
    return Result(name, round(time.monotonic() - start, 1))


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    """Wait for it; StepFailed after CHANGE_SECONDS."""
    deadline = time.monotonic() + CHANGE_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise StepFailed(f"not in {CHANGE_SECONDS} s: {what}")
        time.sleep(0.2)


def main_pid(unit: str) -> int:
    """Return the pid of a unit's main process, 0 if there is none."""
    return int(show(unit, "MainPID"))


def show(unit: str, name: str) -> str:
    """Return a property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit).strip()


def systemctl(*arguments: str, seconds: float = CHANGE_SECONDS) -> str:
    """Run systemctl; StepFailed with what it says if it fails."""
    done = subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise StepFailed(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
