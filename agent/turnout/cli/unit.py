"""`turnout unit`: what the unit files of an edge run; `turnout units` writes them."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from turnout.cli.loader import load_programs
from turnout.cli.options import add_child_options, checked_settings_from
from turnout.defaults import fill_defaults
from turnout.logs import set_up_logs
from turnout.settings import RUNTIME_ROOT, Settings
from turnout.takedown import as_it_runs
from turnout.units import parts

_PARTS = ("load", "unload", "agent", "transceiver", "start", "reload", "drain")


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser, without a line in the help."""
    parser = subparsers.add_parser("unit")
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("slot", type=int, nargs="?", default=0)
    parser.add_argument("--config", type=Path, default=None)
    add_child_options(parser)


def run(args: argparse.Namespace) -> int:
    """Do one part's work. Returns 0; as agent or transceiver it does not return."""
    settings = _read(args) if args.part == "load" else _running(args)
    name = f"transceiver-{args.slot}" if args.part == "transceiver" else args.part
    set_up_logs(name, settings.log_level, as_json=settings.log_json)
    match args.part:
        case "load":
            parts.load(settings, load_programs)
        case "unload":
            parts.unload(settings)
        case "agent":
            parts.become_agent(settings)
        case "transceiver":
            parts.become_transceiver(settings, args.slot)
        case "start":
            asyncio.run(parts.start(settings))
        case "reload":
            asyncio.run(parts.reload(settings, lambda: _read(args)))
        case "drain":
            asyncio.run(parts.drain(settings))
    return 0


def _read(args: argparse.Namespace) -> Settings:
    """Return what the settings file says now of this instance, with the host's defaults."""
    flags = {"config": args.config, "instance": args.instance}
    if args.runtime_root != RUNTIME_ROOT:
        flags["runtime_root"] = str(args.runtime_root)
    return fill_defaults(checked_settings_from(argparse.Namespace(**flags)))


def _running(args: argparse.Namespace) -> Settings:
    """Return what the edge runs with, as its start has written it down."""
    if args.part == "unload":
        # Its start may have ended before that.
        return as_it_runs(Settings(instance=args.instance, runtime_root=args.runtime_root))
    return Settings.load(args.instance, args.runtime_root)
