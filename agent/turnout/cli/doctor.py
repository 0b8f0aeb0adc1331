"""`turnout doctor`: look at the host, change nothing, say what is in the way and what mends it."""

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from turnout import rundir
from turnout.cli.options import add_config_option, add_instance_options, settings_from
from turnout.defaults import fill_defaults
from turnout.doctor import examine
from turnout.doctor.finding import FAIL, OK, WARN, Finding
from turnout.errors import SettingsError
from turnout.kernel import host
from turnout.kernel.facts import gather
from turnout.settings import Settings

_DESCRIPTION = """\
Look at everything an edge needs on this host and say what is in its way, why it matters and what
mends it. Changes nothing: programs are attached nowhere, no packet is sent. While the instance
runs, what it runs with is looked at unless a flag says otherwise."""

_EPILOG = """\
examples:
  turnout doctor
  turnout doctor --interface eth1 --vip 192.0.2.2 --xdp-mode native
  turnout doctor --json

Exits 1 when something fails, 0 otherwise, warnings or not. Needs root to see everything."""

_COLOURS = {OK: "\033[32m", WARN: "\033[33m", FAIL: "\033[31m"}
_PLAIN = "\033[0m"
_INDENT = " " * 6


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what on this host is in the way of an edge",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    planned = parser.add_argument_group("the edge that is planned, as `turnout run` takes it")
    planned.add_argument("--interface", metavar="NAME", action="append")
    planned.add_argument("--vip", metavar="ADDRESS", action="append")
    planned.add_argument("--advertise", metavar="PUBLIC[=VIP]", action="append")
    planned.add_argument("--shared-port", metavar="PORT")
    planned.add_argument("--lanes", metavar="FIRST-LAST")
    planned.add_argument("--http", metavar="ADDRESS:PORT")
    planned.add_argument("--metrics", metavar="ADDRESS:PORT")
    planned.add_argument("--xdp-mode", metavar="MODE", help="generic or native")
    planned.add_argument("--local", action="store_true", help="lo as well")
    add_config_option(parser)
    add_instance_options(parser)
    parser.add_argument(
        "--json", action="store_true", default=False, help="print the findings as JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings. Returns 1 if one of them fails, else 0."""
    settings = _fill_as_far_as_possible(_planned(args))
    findings = examine(gather(settings, _own_pids(settings)))
    failed = any(finding.level == FAIL for finding in findings)
    if args.json:
        entries = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": not failed, "findings": entries}, indent=2))
    else:
        width = shutil.get_terminal_size().columns
        print("\n".join(format_findings(findings, width, colour=sys.stdout.isatty())))
    return int(failed)


def _planned(args: argparse.Namespace) -> Settings:
    """Return what the flags say, over what the instance runs with if it runs."""
    given = settings_from(args)
    running = rundir.ProcessId.read(given.runtime / rundir.RUN_PID)
    if running is None or not running.is_ours():
        return given
    there = Settings.load(given.instance, given.runtime_root)
    named = {name.replace("_", "-") for name in vars(args)}
    values = {key: value for key, value in given.to_values().items() if key in named}
    return Settings.parse(there.to_values() | values)


def _fill_as_far_as_possible(settings: Settings) -> Settings:
    """Fill in the host's defaults; what is not there is a finding, no end."""
    try:
        return fill_defaults(settings)
    except SettingsError:
        present = {link.name for link in host.interfaces()} & set(settings.interfaces)
        return settings.replace(vips=settings.vips or tuple(host.default_vips(sorted(present))))


def _own_pids(settings: Settings) -> frozenset[int]:
    processes = map(rundir.ProcessId.read, settings.runtime.glob("*.pid"))
    return frozenset(one.pid for one in processes if one is not None and one.is_ours())


def format_findings(findings: list[Finding], width: int, *, colour: bool) -> Iterator[str]:
    """Return the table for a person: a line each, and below it the why and the mend."""
    column = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = finding.level.ljust(4)
        if colour:
            level = f"{_COLOURS[finding.level]}{level}{_PLAIN}"
        # The level's column is 4 wide on paper, whatever the escape sequences add.
        hanging = " " * (column + 8)
        text = _wrapped(finding.what, hanging, hanging, width).lstrip()
        yield f"{level}  {finding.check.ljust(column)}  {text}"
        if finding.why:
            yield _wrapped(finding.why, f"{_INDENT}why:  ", _INDENT * 2, width)
        if finding.mend:
            yield f"{_INDENT}mend: {finding.mend}"  # never wrapped: it is there to be copied
    counts = {level: sum(1 for one in findings if one.level == level) for level in (FAIL, WARN)}
    yield ""
    yield f"{len(findings)} checks: {counts[FAIL]} failed, {counts[WARN]} with a warning"


def _wrapped(text: str, first: str, rest: str, width: int) -> str:
    return textwrap.fill(
        text,
        width=max(width, 60),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
