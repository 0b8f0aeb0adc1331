"""`turnout agent`: the agent process of an edge; `turnout run` starts it."""

import argparse
import asyncio
from typing import Any

from turnout.cli.options import add_child_options
from turnout.edge import run_agent
from turnout.installation import Installation
from turnout.logs import set_up_logs
from turnout.rundir import wait_for_upgrade
from turnout.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser, without a line in the help."""
    add_child_options(subparsers.add_parser("agent"))


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. Returns 0."""
    settings = Settings.load(args.instance, args.runtime_root)
    set_up_logs("agent", settings.log_level, as_json=settings.log_json)
    started_as = Installation.of(settings.runtime)
    wait_for_upgrade(settings.runtime)
    if (installation := Installation.of(settings.runtime)) != started_as:
        installation.become()
    asyncio.run(run_agent(settings))
    return 0
