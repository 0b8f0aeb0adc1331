"""`python -m live [--check] [FLAGS OF turnout run]`: an edge, shown to work by one call.

The datapath's tests pass here first; then an edge starts on the default-route interface and on a
veth, a client in a namespace behind that veth places a call, the kernel's counters say what became
of its packets, and the namespace goes. The edge serves until Ctrl-C; with --check it ends. Called
by scripts/run.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from leftovers import left_since, look_for
from live.account import describe, difference
from live.call import judge_call, place_call
from live.client_namespace import ClientNamespace
from live.edge import Edge, EdgeFailed
from results import Result, conclude, print_results
from turnout.cli import run as cli_run
from turnout.cli.options import settings_from
from turnout.defaults import fill_defaults
from turnout.errors import TurnoutError
from turnout.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
DATAPATH_SECONDS = 300

# In front of what the caller says: later flags win.
DEFAULTS = ("--local", "--open", "--transceivers", "2", "--xdp-mode", "generic")

USAGE = "scripts/run [--check] [FLAG OF turnout run]..."


class Stopped(Exception):
    """SIGTERM or SIGINT came: the edge shall end."""


def main() -> int:
    """Do all of it; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        usage=USAGE,
        description="Run an edge on this machine and place one call through it.",
        epilog="All other flags are those of `turnout run`; --dry-run only says what would change.",
        allow_abbrev=False,
    )
    parser.add_argument("--check", action="store_true", help="end after the call: exit 0 or 1")
    options, flags = parser.parse_known_args()
    if "--dry-run" in flags:
        return subprocess.run(turnout("run", *DEFAULTS, *flags), check=False).returncode
    results: list[Result] = []
    with stopped_by_signals():
        try:
            run(flags, check=options.check, results=results)
        except Stopped:
            say("stopped")
        except (TurnoutError, EdgeFailed, RuntimeError) as error:
            print(f"scripts/run: {error}", file=sys.stderr)
            results.append(Result("run", str(error).splitlines()[0], "no error", met=False))
    if options.check:
        return 0 if conclude(results) else 1
    return 0 if all(result.met for result in results) else 1


def run(flags: list[str], *, check: bool, results: list[Result]) -> None:
    """Prove, start, call, serve; what was found is added to `results` as it is found."""
    given = parse_flags(flags)
    settings = fill_defaults(given)
    results.append(prove_datapath())
    if not results[-1].met:
        raise EdgeFailed("the datapath's tests fail here, so nothing was attached")
    before = look_for(settings.instance)
    try:
        serve(flags, given, settings, check=check, results=results)
    finally:
        left = left_since(before, lambda: look_for(settings.instance))
        results.append(Result("left behind", "; ".join(left) or "nothing", "nothing", met=not left))
        say(f"left behind: {results[-1].value}")


def serve(
    flags: list[str], given: Settings, settings: Settings, *, check: bool, results: list[Result]
) -> None:
    """Start the edge, call through it, and keep it until a signal comes unless this is a check."""
    with ExitStack() as stack:
        client = stack.enter_context(ClientNamespace(vip.version for vip in settings.vips))
        named = () if given.interfaces else settings.interfaces
        arguments = [*DEFAULTS, *flags]
        arguments += [part for name in (*named, client.interface) for part in ("--interface", name)]
        if not given.vips:
            arguments += [part for vip in settings.vips for part in ("--vip", str(vip))]
        say("starting the edge; all of this is undone at the end")
        edge = stack.enter_context(Edge(arguments, settings))
        results += call_through(edge, client)
        client.remove()
        if not all(result.met for result in results):
            print_results(results)
            say("not as it should be; `turnout doctor` says")
            subprocess.run(turnout("doctor", "--instance", settings.instance), check=False)
        elif not check:
            print_results(results)
            say("serving; Ctrl-C ends it")
            raise EdgeFailed(f"turnout run ended by itself with {edge.wait()}")


def parse_flags(flags: list[str]) -> Settings:
    """Return the settings of `turnout run` with DEFAULTS and `flags`. Raises SettingsError."""
    parser = argparse.ArgumentParser(prog="scripts/run", usage=USAGE)
    cli_run.add_parser(parser.add_subparsers(dest="command"))
    return settings_from(parser.parse_args(["run", *DEFAULTS, *flags]))


def prove_datapath() -> Result:
    """Run the datapath's tests on this kernel: no interface is touched."""
    say("proving the datapath on this kernel (BPF_PROG_TEST_RUN)")
    pytest = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest, "--maxfail=3", "tests/datapath"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=DATAPATH_SECONDS,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    summary = lines[-1] if lines else "no output"
    if done.returncode:
        print("\n".join([*lines[-60:], done.stderr.strip()]), flush=True)
    else:
        print(f"  {summary}", flush=True)
    return Result("datapath", summary, "all pass", met=done.returncode == 0)


def call_through(edge: Edge, client: ClientNamespace) -> list[Result]:
    """Place a call from the client's namespace and hold the edge's counters against it."""
    say(f"placing a call from namespace {client.name}")
    before = edge.status()
    report = place_call(client.name, edge.settings)
    after = edge.status()
    rose = difference(before["counters"], after["counters"])
    print("\n".join(f"  {line}" for line in describe(rose)), flush=True)
    return judge_call(report, rose, before, after)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into Stopped; more of them do not disturb the way back."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in numbers:
        signal.signal(number, stop)
    yield
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def turnout(*arguments: str) -> list[str]:
    """Return the command line of `turnout ARGUMENTS`."""
    return [sys.executable, "-m", "turnout", *arguments]


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
