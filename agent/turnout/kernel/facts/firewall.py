"""Reads the host's packet filters, whatever tool made them, and changes none.

nft lists everything that lives in nf_tables; tables that iptables-nft wrote are taken from its own
save tool where there is one, because nft shows their matches only as opaque; legacy iptables
tables are looked at only if the kernel has them. Called by kernel/facts/ for `turnout doctor`.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.kernel.facts.iptables import parse_iptables_save
from turnout.kernel.facts.ruleset import Ruleset

_TIMEOUT_S = 20
_LEGACY_TABLES = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}
_SAVE_PREFIX = {"ip": "iptables", "ip6": "ip6tables"}


@dataclass(frozen=True, slots=True)
class Firewall:
    """The rules that were read, and what could not be read (one line each)."""

    ruleset: Ruleset
    unread: tuple[str, ...]


def read_firewall() -> Firewall:
    """Read the packet filters of this network namespace."""
    ruleset = Ruleset()
    unread: list[str] = []
    if shutil.which("nft") is None:
        unread.append("nft is not installed, so nf_tables rules cannot be listed")
    else:
        text = _run(["nft", "-j", "list", "ruleset"], unread)
        objects = json.loads(text)["nftables"] if text else []
        ruleset.add("nft", objects)
        for family in sorted(opaque_families(objects)):
            _prefer_iptables_nft(ruleset, family, unread)
    for family, names in _LEGACY_TABLES.items():
        _read_legacy(ruleset, family, Path(names), unread)
    return Firewall(ruleset, tuple(unread))


def opaque_families(objects: list[dict[str, Any]]) -> set[str]:
    """Return the families in which iptables-nft left matches that nft cannot name."""
    rules = [entry["rule"] for entry in objects if "rule" in entry]
    opaque = {r["family"] for r in rules if any("xt" in one for one in r["expr"])}
    return opaque & set(_SAVE_PREFIX)


def _prefer_iptables_nft(ruleset: Ruleset, family: str, unread: list[str]) -> None:
    tool = f"{_SAVE_PREFIX[family]}-nft"
    if shutil.which(f"{tool}-save") is None:
        unread.append(f"{tool}-save is not installed, so some rules are opaque")
        return
    objects = parse_iptables_save(_run([f"{tool}-save"], unread), family)
    for table in {entry["chain"]["table"] for entry in objects if "chain" in entry}:
        ruleset.remove_table("nft", family, table)
    ruleset.add(tool, objects)


def _read_legacy(ruleset: Ruleset, family: str, names: Path, unread: list[str]) -> None:
    # Asking for a table that is not there would create it: read only what is listed.
    try:
        tables = names.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
    except OSError as error:
        unread.append(f"cannot read {names} ({error.strerror})")
        return
    tool = f"{_SAVE_PREFIX[family]}-legacy"
    if tables and shutil.which(f"{tool}-save") is None:
        unread.append(f"legacy tables {', '.join(tables)} exist, but not {tool}-save to list them")
        return
    for table in tables:
        ruleset.add(tool, parse_iptables_save(_run([f"{tool}-save", "-t", table], unread), family))


def _run(command: list[str], unread: list[str]) -> str:
    """Return what the command prints; empty, and a line in `unread`, if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        unread.append(f"`{' '.join(command)}` failed: {lines[0]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        unread.append(f"`{' '.join(command)}` failed: {error}")
    else:
        return done.stdout
    return ""
