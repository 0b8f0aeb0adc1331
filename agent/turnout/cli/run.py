"""`turnout run`: an edge in the foreground, until Ctrl-C or SIGTERM."""

import argparse
import asyncio
import logging
import os
from typing import Any

from turnout.cli.options import add_config_option, add_instance_options, checked_settings_from
from turnout.defaults import fill_defaults
from turnout.errors import SettingsError, TurnoutError
from turnout.logs import set_up_logs
from turnout.settings import Settings
from turnout.supervisor import Supervisor, plan

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Start an edge and keep it running. The program is compiled and pinned, attached to the interfaces,
and one transceiver a core is started. Ctrl-C ends all of it and undoes every change; SIGTERM does
so too, once calls had a moment to end. After a kill -9, `turnout down` does that. SIGHUP reads the
settings file again; calls go on."""

_EPILOG = """\
examples:
  turnout run --open
      the interface of the default route, its addresses, UDP port 3478; whoever gets there may call
  turnout run --http 127.0.0.1:8080
      WHIP for a proxy on this host; or give a token, http_token in /etc/turnout/turnout.toml
  turnout run --open --dry-run
      every change it would make, and none made
  turnout run --open --local
      clients on this very host too: try `turnout call http://127.0.0.1:8080/whip`
  turnout run --open --interface eth1 --vip 192.0.2.2 --vip 2001:db8::2 --xdp-mode native
      told where clients come in, on the driver's own hook
  turnout run --open --advertise 203.0.113.5
      behind a cloud's 1:1 NAT: clients are told the public address
  turnout run --open --instance two --interface eth1 --shared-port 3479 --lanes 21000-21999 \\
              --http 0.0.0.0:8081 --metrics 127.0.0.1:9479
      a second edge beside the first; an interface takes only one

Firewalls of the host see the lanes, not the shared port: `turnout doctor` tells if one is in the
way."""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "run",
        help="start an edge and keep it running",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    clients = parser.add_argument_group("where clients come in")
    clients.add_argument(
        "--interface",
        metavar="NAME",
        action="append",
        help="attach here (repeatable; default: the interfaces of the default route)",
    )
    clients.add_argument(
        "--vip",
        metavar="ADDRESS",
        action="append",
        help="steer what comes for this address (repeatable, up to 8; default: the preferred "
        "source address of each family on the interfaces)",
    )
    clients.add_argument(
        "--advertise",
        metavar="PUBLIC[=VIP]",
        action="append",
        help="the address clients are told instead of the VIP, behind 1:1 NAT (repeatable)",
    )
    clients.add_argument(
        "--shared-port", metavar="PORT", help="the one UDP port of all clients (default: 3478)"
    )
    clients.add_argument("--local", action="store_true", help="attach to lo as well")
    clients.add_argument(
        "--xdp-mode",
        metavar="MODE",
        help="generic works on every device, native is fast and up to its driver "
        "(default: generic)",
    )
    owners = parser.add_argument_group("who serves them")
    owners.add_argument(
        "--transceivers", metavar="N", help="how many transceivers to start (default: one a CPU)"
    )
    owners.add_argument(
        "--lanes",
        metavar="FIRST-LAST",
        help="UDP ports of the transceivers, reachable only through the shared port "
        "(default: 20000-20999)",
    )
    owners.add_argument(
        "--app", metavar="APP", help="what answers calls: echo, or rtp://HOST:PORT (default: echo)"
    )
    owners.add_argument(
        "--webhook", metavar="URL", help="where the RTP bridge announces calls (default: none)"
    )
    owners.add_argument(
        "--transceiver-user",
        metavar="USER",
        help="whom transceivers run as: a name or uid, not root (default: turnout, if there is "
        "such a user, else nobody)",
    )
    owners.add_argument(
        "--drain-on-stop",
        metavar="SECONDS",
        help="how long SIGTERM lets calls come to their end before it ends them; 0 is not at all "
        "(default: 5)",
    )
    doors = parser.add_argument_group("doors")
    doors.add_argument(
        "--http", metavar="ADDRESS:PORT", help="WHIP for clients (default: 0.0.0.0:8080)"
    )
    doors.add_argument(
        "--open", action="store_true", help="serve WHIP to everybody: no token is asked for"
    )
    doors.add_argument(
        "--offers-a-minute",
        metavar="N",
        help="how many offers one client address may make; 0 is any number (default: 0)",
    )
    doors.add_argument("--tls-cert", metavar="FILE", help="PEM chain: WHIP over https")
    doors.add_argument("--tls-key", metavar="FILE", help="its PEM key")
    doors.add_argument(
        "--trusted-proxy",
        metavar="NETWORK",
        action="append",
        help="whose word on a client's address counts (repeatable)",
    )
    doors.add_argument(
        "--metrics", metavar="ADDRESS:PORT", help="Prometheus metrics (default: 127.0.0.1:9478)"
    )
    add_config_option(parser)
    add_instance_options(parser)
    parser.add_argument(
        "--log-level", metavar="LEVEL", help="debug, info, warning or error (default: info)"
    )
    parser.add_argument(
        "--log-json", action="store_true", help="log one JSON object a line, in every process"
    )
    parser.add_argument(
        "--dry-run", action="store_true", default=False, help="print every change, make none"
    )


def run(args: argparse.Namespace) -> int:
    """Run an edge until it is told to stop. Returns 0, or 1 if it failed and the log says why."""
    settings = _read(args)
    if args.dry_run:
        lines = plan(settings)
        print("would, and would undo at the end:")
        print("\n".join(f"  {line}" for line in lines))
        return 0
    require_root("run")
    set_up_logs("run", settings.log_level, as_json=settings.log_json)
    say = log.info if settings.log_json else _say
    try:
        asyncio.run(Supervisor(settings, say, lambda: _read(args)).run())
    except SettingsError:
        raise
    except TurnoutError as error:
        if not settings.log_json:
            raise
        # Whoever reads the log as JSON finds its end there too.
        log.error("%s", error)  # noqa: TRY400 - it is a message, and its traceback is not
        return 1
    return 0


def _read(args: argparse.Namespace) -> Settings:
    """Return what file and flags say now, with the host's defaults. Raises SettingsError."""
    return fill_defaults(checked_settings_from(args))


def require_root(command: str) -> None:
    """Raise TurnoutError unless this process may do what the command does."""
    if os.geteuid() != 0:
        raise TurnoutError(
            f"it attaches programs to interfaces: run it as root (sudo turnout {command})"
        )


def _say(line: str) -> None:
    print(f"turnout: {line}", flush=True)
