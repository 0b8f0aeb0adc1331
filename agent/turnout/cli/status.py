"""`turnout status`: owners, sessions, and what became of each packet, for people and as JSON."""

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterable
from typing import Any

from turnout.cli.drain import describe
from turnout.cli.options import add_instance_options, instance_from
from turnout.client import Client
from turnout.errors import ApiError, SettingsError, TurnoutError
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.settings import Settings
from turnout.status import (
    Picture,
    build_status_without_agent,
    read_interfaces,
    verdict_sum,
)

_DESCRIPTION = """\
Show an edge: where it is attached, who owns how many sessions, and what the kernel did with each
packet. While the agent is down the kernel steers on, and this reads its maps."""

_EPILOG = """\
examples:
  turnout status
  turnout status --json | jq .counters
  watch -n1 turnout status

Exit code 1: the agent does not answer."""


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "status",
        help="show owners, sessions and packets",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_instance_options(parser)
    parser.add_argument("--json", action="store_true", help="the whole picture as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the picture. Returns 0 if an agent gave it, 1 if the maps had to."""
    settings = instance_from(args)
    try:
        picture = asyncio.run(_ask_agent(settings))
    except ApiError as error:
        picture = _read_maps(settings, error)
    if args.json:
        print(json.dumps(picture, indent=2))
    else:
        print("\n".join(format_picture(picture)))
    return 0 if picture["agent"] else 1


async def _ask_agent(settings: Settings) -> Picture:
    async with Client(settings.api_socket) as api:
        return await api.status()


def _read_maps(settings: Settings, reason: ApiError) -> Picture:
    # The flags stand where the edge left no settings.
    with contextlib.suppress(SettingsError):
        settings = Settings.load(settings.instance, settings.runtime_root)
    pins = Pins(settings.bpffs, settings.instance)
    try:
        is_pinned = pins.directory.is_dir()
    except PermissionError as error:
        raise TurnoutError(f"{reason}; {pins.directory} is for root alone to read") from error
    if not is_pinned:
        raise TurnoutError(f"{reason}; nothing is pinned under {pins.directory} either")
    with Maps.open(pins) as maps:
        return build_status_without_agent(settings.instance, maps, read_interfaces(pins))


def format_picture(picture: Picture) -> list[str]:
    """Return the picture as lines for a person."""
    lines = [f"instance {picture['instance']}, turnout {picture['version']}"]
    if not picture["agent"]:
        lines.append("AGENT DOWN, kernel steering on: no new sessions; this is read from the maps")
    for interface in picture["interfaces"]:
        note = f" ({interface['note']})" if interface["note"] else ""
        lines.append(
            f"interface {interface['name']}: XDP {interface['mode']}, MTU {interface['mtu']}{note}"
        )
    if not picture["interfaces"]:
        lines.append("interface: NONE, nothing is steered")
    lines += _vip_lines(picture)
    lines += [f"WARNING: {warning}" for warning in picture.get("warnings", ())]
    lines += ["", *_owner_table(picture["owners"])]
    lines += [*map(describe, picture.get("drains", ())), ""]
    return lines + _counter_lines(picture)


def _vip_lines(picture: Picture) -> list[str]:
    port = picture["shared_port"]
    # Without an agent nobody knows more of a VIP than that it is steered.
    if "addresses" not in picture:
        return [f"VIP {vip}, UDP port {port}" for vip in picture["vips"]]
    lines = []
    for one in picture["addresses"]:
        line = f"VIP {one['vip']}, UDP port {port}"
        if not one["present"]:
            line += ": ADDRESS GONE from this host, its calls wait for it"
        elif not one["advertised"]:
            line += ": its calls go on, new clients are not told of it"
        elif one["advertised"] != [one["vip"]]:
            line += f", advertised as {', '.join(one['advertised'])}"
        lines.append(line)
    return lines


def _owner_table(owners: Iterable[Picture]) -> list[str]:
    head = ("owner", "kind", "state", "lane", "sessions", "steered", "returned")
    rows = [
        (
            f"{owner['slot']}.{owner['generation']}",
            owner["kind"],
            owner["state"],
            str(owner["lane"]),
            str(owner["sessions"]),
            str(owner["steered_packets"]),
            str(owner["returned_packets"]),
        )
        for owner in owners
    ]
    if not rows:
        return ["no owners"]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            # Names to the left, numbers to the right.
            cell.ljust(width) if index < 3 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _counter_lines(picture: Picture) -> list[str]:
    counters = picture["counters"]
    lines = [
        f"{name.replace('__', ' ', 1):<28} {count:>12}"
        for name, count in counters.items()
        if count and name != "received"
    ]
    received, verdicts = counters["received"], verdict_sum(counters)
    if received == verdicts:
        lines.append(f"received {received} = sum of verdicts {verdicts}")
    elif picture["verdicts_add_up"]:
        lines.append(f"received {received}, sum of verdicts {verdicts}: they are arriving just now")
    else:
        lines.append(f"received {received}, BUT the sum of verdicts is {verdicts}: report this")
    if "shared_port_datagrams" in picture:
        lines.append(
            f"datagrams left to the shared port's socket: {picture['shared_port_datagrams']}"
        )
    return lines
