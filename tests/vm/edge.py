"""In the guest: a whole edge on the virtio_net card, natively, and one real call through it.

The guest's first card is the edge's; the second, on the same wire, is moved into the namespace of
a client. Everything is asked of the command line, as an operator would. Run by guest.py as a step;
what is found goes to RESULTS with its bounds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leftovers import left_since, look
from live.account import describe, difference
from live.call import judge_call
from live.edge import Edge, EdgeFailed
from results import Result, print_results
from system.namespaces import command
from turnout.settings import Settings
from vm.guest import RESULTS
from vm.machine import CARDS

CARD, CLIENT_CARD = CARDS
CLIENT = "tn-vm-client"

# Private ones: the WHIP door may stand open there.
VIPS = ("10.78.0.1", "fd78::1")
CLIENT_ADDRESSES = ("10.78.0.2", "fd78::2")
LENGTHS = (24, 64)
WHIP = f"{VIPS[0]}:8080"

FLAGS = [
    *("--interface", CARD, "--xdp-mode", "native"),
    *(part for vip in VIPS for part in ("--vip", vip)),
    *("--http", WHIP, "--transceivers", "1"),
]

# Emulated: bounds that only end a hang.
COMMAND_SECONDS = 60
CALL_SECONDS = 90
TONE_SECONDS = 3


def main() -> int:
    """Do all of it, leave the results for guest.py; return 0 if every bound is met."""
    results: list[Result] = []
    before = look()
    try:
        with client_network():
            run(results)
    except (EdgeFailed, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"vm.edge: {error}", flush=True)
        results.append(Result("run", str(error).splitlines()[0], "no error", met=False))
    left = left_since(before, look)
    results.append(Result("left behind", "; ".join(left) or "nothing", "nothing", met=not left))
    print_results(results)
    RESULTS.write_text(json.dumps([asdict(result) for result in results]))
    return 0 if all(result.met for result in results) else 1


@contextmanager
def client_network() -> Iterator[None]:
    """Put both cards on one network, the client's in a namespace; undo it at the end."""
    command("ip", "netns", "add", CLIENT)
    try:
        command("ip", "link", "set", CLIENT_CARD, "netns", CLIENT)
        inside = ("ip", "-n", CLIENT)
        for ip, card, addresses in (
            (("ip",), CARD, VIPS),
            (inside, CLIENT_CARD, CLIENT_ADDRESSES),
        ):
            for address, length in zip(addresses, LENGTHS, strict=True):
                # Without nodad a v6 address cannot be used for a second.
                flags = ("nodad",) if ":" in address else ()
                command(*ip, "address", "add", f"{address}/{length}", "dev", card, *flags)
            command(*ip, "link", "set", card, "up")
        yield
    finally:
        command("ip", "netns", "delete", CLIENT)
        command("ip", "address", "flush", "dev", CARD)


def run(results: list[Result]) -> None:
    """Start, look, call, examine, take down; what is found is added to `results` as it is found."""
    start = time.monotonic()
    with Edge(FLAGS, Settings()) as edge:
        results.append(Result("ready, s", round(time.monotonic() - start, 1)))
        before = ask("status")
        results += judge_attachment(before)
        report = place_call()
        after = edge.status()
        rose = difference(before["counters"], after["counters"])
        print("\n".join(f"  {line}" for line in describe(rose)), flush=True)
        results += judge_call(report, rose, before, after)
        results.append(judge_findings(ask("doctor")))
        start = time.monotonic()
        print(turnout("down").stdout, flush=True)
        results.append(Result("down, s", round(time.monotonic() - start, 1)))
        status = edge.wait()
        results.append(Result("turnout run ended with", status, "0", met=status == 0))


def judge_attachment(status: dict[str, Any]) -> list[Result]:
    """Compare what the edge says of its card with what the kernel says, and with what we asked."""
    said = {place["name"]: place["mode"] for place in status["interfaces"]}
    link = json.loads(command("ip", "-json", "-details", "link", "show", CARD))[0]
    driver = (Path("/sys/class/net") / CARD / "device/driver").resolve().name
    # As if_link.h counts: 1 is the driver's own hook, 2 is generic.
    kernel = {1: "native", 2: "generic"}.get(link.get("xdp", {}).get("mode"), "none")
    mode = said.get(CARD, "none")
    return [
        Result("driver", driver, "virtio_net", met=driver == "virtio_net"),
        Result("XDP mode, by turnout status", mode, "native", met=mode == "native"),
        Result("XDP mode, by the kernel", kernel, "native", met=kernel == "native"),
    ]


def place_call() -> dict[str, Any]:
    """Place a call from the client's namespace; return its report (turnout/calling/report.py)."""
    flags = ["--duration", str(TONE_SECONDS), "--json"]
    into = ["nsenter", f"--net=/run/netns/{CLIENT}"]
    done = turnout("call", f"http://{WHIP}/whip", *flags, prefix=into, seconds=CALL_SECONDS)
    try:
        report: dict[str, Any] = json.loads(done.stdout)["calls"][0]
    except ValueError:
        last = (done.stderr.strip() or "no report").splitlines()[-1]
        return {"ok": False, "error": last}
    print(json.dumps(report), flush=True)
    return report


def judge_findings(doctor: dict[str, Any]) -> Result:
    """Turn what `turnout doctor` found into one result."""
    failures = [finding for finding in doctor["findings"] if finding["level"] == "fail"]
    told = "; ".join(f"{finding['check']}: {finding['what']}" for finding in failures)
    return Result("doctor's failures", told or 0, "0", met=not failures)


def ask(subcommand: str) -> dict[str, Any]:
    """Return what `turnout SUBCOMMAND --json` prints; raises RuntimeError if that is no JSON."""
    done = turnout(subcommand, "--json")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeError(f"turnout {subcommand} said no JSON: {done.stderr.strip()}") from error
    return answer


def turnout(
    *arguments: str, prefix: list[str] | None = None, seconds: float = COMMAND_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run `turnout ARGUMENTS` to its end, behind `prefix`."""
    return subprocess.run(
        [*(prefix or []), sys.executable, "-m", "turnout", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
