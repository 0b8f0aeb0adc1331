"""`turnout down`: ends an edge and removes everything of it, also after a kill -9."""

import argparse
import sys
from typing import Any

from turnout.cli.options import add_instance_options, instance_from
from turnout.cli.run import require_root
from turnout.errors import TurnoutError
from turnout.logs import set_up_logs
from turnout.takedown import down, instances

_DESCRIPTION = """\
End an edge, however much of it still runs, and remove every program, filter, pin, socket and
reservation that is ours, and nothing else. One that runs is drained first, for as long as its
drain_on_stop says. Says what it removed; doing it twice does no harm."""

_EPILOG = """\
examples:
  turnout down                   the edge that `turnout run` started
  turnout down --instance two    another one
  turnout down --all             every edge of this host
  turnout down --now             without a drain: every call ends at once"""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "down",
        help="end an edge and leave nothing behind",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_instance_options(parser)
    parser.add_argument("--all", action="store_true", help="every instance, not only one")
    parser.add_argument("--now", action="store_true", help="end its calls at once: no drain first")


def run(args: argparse.Namespace) -> int:
    """Take one instance or all of them down and say what went. Returns 0, or 1 if one stays."""
    require_root("down")
    set_up_logs("down", "info")
    settings = instance_from(args)
    names = instances(settings) if args.all else [settings.instance]
    failed: list[TurnoutError] = []
    removed = []
    for name in names:
        try:
            removed += down(settings.replace(instance=name), _say, is_drained=not args.now)
        except TurnoutError as error:
            # With --all the others go down all the same.
            failed.append(error)
    for line in removed:
        _say(line)
    for failure in failed:
        print(f"turnout down: {failure}", file=sys.stderr)
    if not removed and not failed:
        _say("nothing to remove")
    return 1 if failed else 0


def _say(line: str) -> None:
    print(f"turnout: {line}", flush=True)
