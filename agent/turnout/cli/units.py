"""`turnout units`: the unit files of an edge, printed or installed."""

import argparse
import subprocess
from pathlib import Path
from typing import Any

from turnout.cli.options import add_config_option, add_instance_options, settings_from
from turnout.errors import TurnoutError
from turnout.units.files import build_units, service_name

_UNITS = Path("/etc/systemd/system")

_DESCRIPTION = """\
Print the systemd units of an edge, or install them: one for its programs and maps, one for the
agent, one for each transceiver, and one for the edge as a whole, which is what you enable, start,
stop and reload. They run this installation, with the settings file."""

_EPILOG = """\
examples:
  turnout units                   what would be installed
  turnout units --install         into /etc/systemd/system; then
  systemctl enable --now turnout
  turnout units --install --instance two --config /etc/turnout/two.toml
                                  a second edge, turnout-two, with a settings file of its own

Again after the installation has moved, and after a change of bpffs, of tls_key, of an upstream's
socket or to a port below 1024: the units hold the paths and capabilities that these take."""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "units",
        help="print or install its systemd units",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--install", action="store_true", help=f"write them to {_UNITS} and have systemd read them"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        default=None,
        help="write them there instead, and nothing else",
    )
    add_config_option(parser)
    add_instance_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print or write the units. Returns 0."""
    directory = args.directory or (_UNITS if args.install else None)
    is_installed = args.directory is None
    settings = settings_from(args)
    units = build_units(settings, args.config)
    if directory is None:
        print("\n".join(f"# {_UNITS / name}\n{text}" for name, text in units.items()), end="")
        return 0
    try:
        for name, text in units.items():
            (directory / name).write_text(text, encoding="utf-8")
            print(f"wrote {directory / name}")
        if is_installed:
            subprocess.run(["systemctl", "daemon-reload"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TurnoutError(f"not installed: {error}") from error
    if is_installed:
        service = service_name(settings.instance)
        print(f"start it, now and at each boot: systemctl enable --now {service}")
    return 0
