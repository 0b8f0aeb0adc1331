"""The flags that several sub-commands share, and the way from flags and file to Settings."""

import argparse
import logging
from pathlib import Path
from typing import Any

from turnout.errors import SettingsError
from turnout.exposure import check_exposure
from turnout.settings import RUNTIME_ROOT, Settings
from turnout.settings.file import DEFAULT_FILE, SettingsFile, check_files

log = logging.getLogger(__name__)

# Flags that are no settings.
_ACTIONS = (
    *("command", "dry_run", "json", "all", "config", "file", "action"),
    *("owner", "deadline", "wait", "now", "hand_off", "to", "install", "directory"),
)


def add_instance_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name an instance. What is not given does not appear in the result."""
    parser.add_argument(
        "--instance",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="which edge of this host (default: default)",
    )
    parser.add_argument(
        "--bpffs",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="the BPF file system that holds the pins (default: /sys/fs/bpf)",
    )
    # For tests; the pid files and sockets of an edge are in one place for everybody else.
    parser.add_argument("--runtime-root", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names the settings file."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=None,
        help=f"the settings file; flags win over it (default: {DEFAULT_FILE}, if it is there)",
    )


def add_child_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which a child of the supervisor finds its settings."""
    parser.add_argument("--instance", default="default")
    parser.add_argument("--runtime-root", type=Path, default=RUNTIME_ROOT)


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings among the flags that were given, by key."""
    return {
        name.replace("_", "-"): value for name, value in vars(args).items() if name not in _ACTIONS
    }


def settings_from(args: argparse.Namespace) -> Settings:
    """Return what flags and settings file make together; flags win. Raises SettingsError."""
    return _file_of(args).parse(flags_of(args))


def checked_settings_from(args: argparse.Namespace) -> Settings:
    """Return the same, of an edge that can be started: files that fit, doors not open unasked."""
    file, flags = _file_of(args), flags_of(args)
    settings = file.parse(flags)
    with file.blamed(flags):
        check_files(settings)
        check_exposure(settings.http.host, token=settings.http_token, is_open=settings.open)
    return settings


def _file_of(args: argparse.Namespace) -> SettingsFile:
    path: Path | None = getattr(args, "config", None)
    return SettingsFile.read_if_there() if path is None else SettingsFile.read(path)


def instance_from(args: argparse.Namespace) -> Settings:
    """Return settings that say which instance is meant, whatever else the file says.

    A file that cannot be used must not keep anybody from looking at an edge or ending it.
    """
    flags = flags_of(args)
    try:
        values = SettingsFile.read_if_there().values
        named = {key: values[key] for key in ("instance", "bpffs") if key in values}
        return Settings.parse(named | flags)
    except SettingsError as error:
        settings = Settings.parse(flags)
        log.warning("the settings file is left out: %s", error)
        return settings
