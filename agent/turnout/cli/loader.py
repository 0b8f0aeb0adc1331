"""`turnout loader`: compile, load and pin, then exit; `turnout run` starts it."""

import argparse
import logging
from typing import Any

from turnout.cli.options import add_child_options
from turnout.logs import set_up_logs
from turnout.settings import Settings

log = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser, without a line in the help."""
    add_child_options(subparsers.add_parser("loader"))


def run(args: argparse.Namespace) -> int:
    """Make the pins of the instance complete. Returns 0."""
    settings = Settings.load(args.instance, args.runtime_root)
    set_up_logs("loader", settings.log_level, as_json=settings.log_json)
    load_programs(settings)
    return 0


def load_programs(settings: Settings) -> None:
    """Compile what is not pinned yet, load and pin it, and say so. Raises KernelError."""
    # LLVM comes with it: nobody else should pay for that.
    from turnout.kernel.loader import load  # noqa: PLC0415
    from turnout.kernel.pins import Pins  # noqa: PLC0415

    report = load(
        Pins(settings.bpffs, settings.instance),
        flows_max=settings.flow_table,
        sessions_max=settings.session_table,
    )
    log.info(
        "%s in %.1f s, %s; adopted maps: %s",
        "compiled and pinned" if report.compiled else "programs are pinned already",
        report.seconds,
        ", ".join(f"{name} {size} bytes" for name, size in report.program_bytes.items()),
        ", ".join(report.adopted_maps) or "none",
    )
    if report.carried is not None:
        carried = ", ".join(f"{count} {name}" for name, count in report.carried.items())
        log.info("carried over from another ABI: %s", carried)
