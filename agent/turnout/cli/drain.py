"""`turnout drain`: an owner takes no new sessions; returns when it has none any more."""

import argparse
import asyncio
import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from turnout.cli.options import add_instance_options, instance_from
from turnout.client import Client, Record
from turnout.errors import ApiError, SettingsError, TurnoutError
from turnout.settings import Settings

LOOK_S = 0.5
TOLD_EVERY_S = 10.0
DEADLINE_MOST_S = 7 * 24 * 3600  # as the local API has it
# An agent that is started again answers within seconds, and goes on with the drain.
AGENT_PATIENCE_S = 30.0

_DESCRIPTION = """\
Have an owner take no new sessions. Those it has live on, with ICE restarts and changes of address
and all, until they end or the deadline comes: then they are ended, and clients are told. The owner
stays drained until `turnout undrain`, or until its process is started anew."""

_EPILOG = """\
examples:
  turnout drain 0                        wait until owner 0 is empty, 10 minutes at most
  turnout drain 0 --deadline 2h --no-wait
  turnout drain 0 --deadline 0           end what it has now
  turnout drain 0 --hand-off             move its calls to another transceiver, mid-sentence

OWNER is its slot, or slot and generation as `turnout status` shows them: 0.3 is drained only while
it is that one. Ctrl-C ends the waiting, not the drain. Exit code 1: the drain was lifted or its
owner has gone before it was done, or nobody waited for that any more."""

_DURATION = re.compile(r"(\d{1,9})(s|m|h|)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_OWNER = re.compile(r"(\d{1,5})(?:\.(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class OwnerName:
    """An owner as somebody types it. Without a generation it is whoever has the slot."""

    slot: int
    generation: int | None = None

    def __str__(self) -> str:
        return f"{self.slot}" if self.generation is None else f"{self.slot}.{self.generation}"


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "drain",
        help="no new sessions for an owner; wait until it has none",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_owner(parser)
    parser.add_argument(
        "--deadline",
        type=parse_duration,
        metavar="TIME",
        default=600,
        help="when what is left is ended: 90s, 10m, 2h (default: 10m)",
    )
    parser.add_argument(
        "--hand-off",
        action="store_true",
        help="move its live calls to another transceiver first; their clients see nothing of it",
    )
    parser.add_argument(
        "--to",
        type=parse_owner,
        metavar="OWNER",
        help="who gets them with --hand-off (default: who has the fewest)",
    )
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="return when it is empty, or at once (default: --wait)",
    )
    add_instance_options(parser)
    parser.add_argument("--json", action="store_true", help="the drain as JSON")


def add_owner(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names an owner."""
    parser.add_argument("owner", type=parse_owner, metavar="OWNER", help="its slot, e.g. 0, or 0.3")


def parse_owner(text: str) -> OwnerName:
    """Read a slot, or slot and generation as the status shows them: 0 or 0.3."""
    match = _OWNER.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an owner's slot, e.g. 0")
    return OwnerName(int(match[1]), None if match[2] is None else int(match[2]))


async def find_slot(api: Client, name: OwnerName) -> int:
    """Return the slot of an owner. Raises TurnoutError if by now it is another one's."""
    if name.generation is not None:
        for owner in await api.owners():
            now = OwnerName(owner["slot"], owner["generation"])
            if now.slot == name.slot and now != name:
                raise TurnoutError(f"owner {name} has gone: its slot is owner {now}'s now")
    return name.slot


def parse_duration(text: str) -> int:
    """Read 90, 90s, 10m or 2h; returns seconds, a week's at most."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a time like 90s, 10m or 2h")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > DEADLINE_MOST_S:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a week at most, which is 168h")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Drain an owner. Returns 0 when it is drained, or drains and nobody waits for it."""
    if args.to is not None and not args.hand_off:
        raise SettingsError("--to names who gets the calls: give it with --hand-off", "to")
    try:
        return asyncio.run(_drain(instance_from(args), args))
    except KeyboardInterrupt:
        print(
            f"turnout drain: nobody waits any more; owner {args.owner} stays drained until "
            f"`turnout undrain {args.owner}`",
            file=sys.stderr,
        )
        return 1


async def _drain(settings: Settings, args: argparse.Namespace) -> int:
    async with Client(settings.api_socket) as api:
        slot = await find_slot(api, args.owner)
        to = None if args.to is None else await find_slot(api, args.to)
        drain = await api.drain(slot, args.deadline)
        if args.hand_off:
            print(describe_hand_off(await api.hand_off(slot, to)), file=sys.stderr)
            (drain,) = (one for one in await api.drains() if one["slot"] == slot)
        if args.wait and not drain["ended"]:
            drain = await _wait(api, drain)
    if args.json:
        print(json.dumps(drain, indent=2))
    else:
        print(describe(drain))
    return 0 if drain["ended"] in {"empty", "deadline"} or not args.wait else 1


async def _wait(api: Client, drain: Record) -> Record:
    """Return the drain when it is over; a line now and then says how far it is."""
    loop = asyncio.get_running_loop()
    told = -TOLD_EVERY_S
    answered = loop.time()
    while not drain["ended"]:
        if loop.time() - told >= TOLD_EVERY_S:
            print(describe(drain), file=sys.stderr, flush=True)
            told = loop.time()
        await asyncio.sleep(LOOK_S)
        try:
            drains = await api.drains()
        except ApiError as error:
            if loop.time() - answered > AGENT_PATIENCE_S:
                raise TurnoutError(f"{error}; the owner takes no sessions meanwhile") from error
            continue
        answered = loop.time()
        found = [one for one in drains if one["slot"] == drain["slot"]]
        drain = found[0] if found else drain | {"ended": "lifted, or its owner has gone"}
    return drain


def describe(drain: Record) -> str:
    """Return one drain as a line for a person."""
    slot, ended, count = drain["slot"], drain["ended"], drain["sessions_ended"]
    if not ended:
        left = describe_seconds(drain["seconds_left"])
        return f"owner {slot}: drains, {drain['sessions']} sessions left, ended in {left}"
    if ended == "deadline":
        return f"owner {slot}: drained, the deadline ended {count} sessions"
    if ended == "empty":
        return f"owner {slot}: drained, empty"
    return f"owner {slot}: drained no more: {ended}"


def describe_hand_off(report: Record) -> str:
    """Return what became of the calls, with the reason of each that was not moved."""
    stayed, lost = report["stayed"], report["lost"]
    counts = f"{report['moved']} calls handed over, {len(stayed)} stay, {len(lost)} lost"
    lines = [f"owner {report['slot']}: {counts}"]
    lines += [f"  {entry['id']} stays: {entry['reason']}" for entry in stayed]
    lines += [f"  {entry['id']} is lost: {entry['reason']}" for entry in lost]
    return "\n".join(lines)


def describe_seconds(seconds: int) -> str:
    """Return a time as people write it: 45 s, 9 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
