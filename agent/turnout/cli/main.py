"""`turnout`: finds the sub-command, runs it, and turns its errors into one line and an exit code.

Exit codes: 0 it went well, 1 it did not, 2 a flag or setting cannot be used. A sub-command's
module offers `add_parser(subparsers)` and `run(args) -> int`; only the one that is asked for is
imported, because `call` and `doctor` bring much along.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module

from turnout import __version__
from turnout.errors import SettingsError, TurnoutError

COMMANDS = (
    "run",
    "down",
    "status",
    "drain",
    "undrain",
    "doctor",
    "call",
    "config",
    "upgrade",
    "units",
)
# What `run` starts, or systemd; nobody types them.
CHILDREN = ("loader", "agent", "unit")

_DESCRIPTION = """\
An edge for WebRTC: clients send to ONE UDP port, an XDP program steers every
packet to the transceiver that owns its session, in the kernel."""

_EPILOG = """\
examples:
  turnout run --local --open   an edge on the default-route interface and lo, for everybody
  turnout status               owners, sessions, and what became of each packet
  turnout call http://127.0.0.1:8080/whip
                               a real call through it, a tone out and back
  turnout drain 0              no new calls for owner 0; wait until its last has ended
  turnout config check         the settings file: what it says, or what is wrong
  turnout doctor               what on this host is in the way, each with its mend
  turnout upgrade              programs and agent of a new version, without a gap
  turnout units                the same edge as systemd units, to be enabled at boot
  turnout down                 end it and leave nothing behind

`turnout COMMAND --help` tells more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; `argv` without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = arguments[0] if arguments and arguments[0] in (*COMMANDS, *CHILDREN) else None
    # What is imported lives for ever: to look for garbage in it takes a fifth of a start.
    gc.disable()
    try:
        parser = _build_parser((named,) if named else COMMANDS)
        gc.freeze()
        gc.enable()
        args = parser.parse_args(arguments)
        if args.command is None:
            parser.print_help()
            return 2
        return int(import_module(f"turnout.cli.{args.command}").run(args))
    except TurnoutError as error:
        print(f"turnout {named}: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Whoever read our output has enough of it (`turnout status | head`).
        sys.stderr.close()
        return 1


def _build_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="turnout",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"turnout {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in commands:
        import_module(f"turnout.cli.{command}").add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
