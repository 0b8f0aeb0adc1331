"""The flags that several sub-commands share, and the way from flags to Settings."""

import argparse
from pathlib import Path

from turnout.settings import RUNTIME_ROOT, Settings

# Flags that are no settings.
_ACTIONS = ("command", "dry_run", "json", "all")


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


def add_child_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which a child of the supervisor finds its settings."""
    parser.add_argument("--instance", default="default")
    parser.add_argument("--runtime-root", type=Path, default=RUNTIME_ROOT)


def settings_from(args: argparse.Namespace) -> Settings:
    """Return the settings that the given flags make. Raises SettingsError."""
    values = {
        name.replace("_", "-"): value for name, value in vars(args).items() if name not in _ACTIONS
    }
    return Settings.parse(values)
