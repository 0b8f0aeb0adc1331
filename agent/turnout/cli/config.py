"""`turnout config check`: the settings that flags' file and defaults make, or what is wrong."""

import argparse
import json
from pathlib import Path
from typing import Any

from turnout.cli.options import checked_settings_from
from turnout.settings import Settings
from turnout.settings.file import DEFAULT_FILE, SettingsFile
from turnout.settings.keys import KEYS, Source
from turnout.settings.tables import IceServer

_DESCRIPTION = """\
Read the settings file as `turnout run` and a reload (SIGHUP) would, look at the files it names, and
print every setting with its value. Changes nothing, asks nobody."""

_EPILOG = """\
examples:
  turnout config check                        the file that `turnout run` takes by itself
  turnout config check new.toml && cp new.toml /etc/turnout/turnout.toml

Exits 2 with one line when something is wrong: file, line, key, value, and what is allowed."""

SECRET = "(secret)"  # noqa: S105 - what stands for one


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    texts: dict[str, Any] = {
        "help": "check a settings file",
        "description": _DESCRIPTION,
        "epilog": _EPILOG,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    actions = subparsers.add_parser("config", **texts).add_subparsers(
        dest="action", metavar="check", required=True
    )
    parser = actions.add_parser("check", **texts)
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help=f"the settings file (default: {DEFAULT_FILE}, if it is there)",
    )
    parser.add_argument("--json", action="store_true", help="print the settings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the settings. Returns 0; what is wrong is a SettingsError."""
    settings = checked_settings_from(argparse.Namespace(config=args.file))
    if args.json:
        print(json.dumps(shown_values(settings), indent=2))
        return 0
    path = args.file or DEFAULT_FILE
    given = SettingsFile.read_if_there(path).values
    print(f"# {path}" if path.exists() else f"# {path} is not there: defaults")
    for name, value in shown_values(settings).items():
        own = given.get(name.replace("_", "-"))
        if isinstance(value, dict):
            named = own if isinstance(own, dict) else {}
            for key, one in value.items():
                _show(f"{name}.{key}", json.dumps(one), is_default=key not in named)
        elif name in ("interface", "vip") and not value:
            _show(name, "(the host's default)", is_default=own is None)
        else:
            _show(name, json.dumps(value), is_default=own is None)
    return 0


def _show(name: str, text: str, *, is_default: bool) -> None:
    print(f"{name} = {text}{'  # default' if is_default else ''}")


def shown_values(settings: Settings) -> dict[str, object]:
    """Return the settings by the file's keys; secrets are named, not shown."""
    values: dict[str, object] = {}
    for key in KEYS.values():
        if key.source == Source.CHILDREN:
            continue
        value = key.value_in(settings)
        if key.name == "ice-server":
            value = [_without_credential(server) for server in settings.ice_servers]
        values[key.file_name] = SECRET if key.is_secret and value else value
    return values


def _without_credential(server: IceServer) -> dict[str, object]:
    credential = SECRET if server.credential else ""
    return {"urls": list(server.urls), "username": server.username, "credential": credential}
