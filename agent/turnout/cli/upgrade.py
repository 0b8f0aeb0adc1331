"""`turnout upgrade`: this installation's programs and agent instead of those that run."""

import argparse
from typing import Any

from turnout.cli.options import add_instance_options, instance_from
from turnout.cli.run import require_root
from turnout.errors import SettingsError, TurnoutError
from turnout.logs import set_up_logs
from turnout.settings import Settings

_DESCRIPTION = """\
Put the programs and the agent of this installation in place of those that run, without losing a
packet. The programs are compiled, verified and tested first: one that is refused changes nothing.
Flows, sessions and counters stay, over a change of the kernel's ABI too. WHIP does not answer for a
second or so, while the agent is started again."""

_EPILOG = """\
examples:
  turnout upgrade                       after the package was replaced in its place
  /opt/turnout-2/bin/turnout upgrade    to an installation beside the one that runs; from the old
                                        one the same command goes back
  turnout upgrade --instance two        another edge

The supervisor and the transceivers run on as they are; a transceiver that is started again comes
from the new installation."""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "upgrade",
        help="replace programs and agent of a running edge by this version's",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_instance_options(parser)


def run(args: argparse.Namespace) -> int:
    """Upgrade one instance. Returns 0; TurnoutError when it was refused."""
    # The compiler comes with it.
    from turnout.upgrading import upgrade  # noqa: PLC0415

    require_root("upgrade")
    set_up_logs("upgrade", "info")
    named = instance_from(args)
    try:
        settings = Settings.load(named.instance, named.runtime_root)
    except SettingsError as error:
        raise TurnoutError(
            f"instance {named.instance} does not run, or with settings that this version does not "
            f"know: {error}"
        ) from error
    upgrade(settings, lambda line: print(f"turnout: {line}", flush=True))
    return 0
