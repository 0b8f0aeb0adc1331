"""`turnout undrain`: a drained owner takes sessions again."""

import argparse
import asyncio
from typing import Any

from turnout.cli.drain import OwnerName, add_owner, find_slot
from turnout.cli.options import add_instance_options, instance_from
from turnout.client import Client, Record
from turnout.settings import Settings

_DESCRIPTION = """\
Lift the drain of an owner: it takes new sessions again. What the drain's deadline has ended stays
ended."""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "undrain",
        help="have a drained owner take sessions again",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_owner(parser)
    add_instance_options(parser)


def run(args: argparse.Namespace) -> int:
    """Lift the drain. Returns 0."""
    drain = asyncio.run(_undrain(instance_from(args), args.owner))
    print(f"owner {args.owner}: takes new sessions again, it has {drain['sessions']}")
    return 0


async def _undrain(settings: Settings, owner: OwnerName) -> Record:
    async with Client(settings.api_socket) as api:
        return await api.undrain(await find_slot(api, owner))
