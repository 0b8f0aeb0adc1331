"""Does a program that was just compiled do what it should? Known packets, before it steers any.

BPF_PROG_TEST_RUN on maps of its own that nobody else has: an edge with one owner and one session.
A check, media, strangers and noise must each end as they should, in and out, over IPv4 and IPv6;
flows must follow a session that is handed over, and go with one that ends.
Called by the loader with what it compiled, before anything is pinned.
"""

import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from turnout.errors import SelfTestError
from turnout.kernel import bpf
from turnout.kernel.handoff import FlowToMove, FollowProgram
from turnout.kernel.maps import Maps
from turnout.kernel.sweep import SweepProgram
from turnout.wire.hmac_midstate import sha1_midstates
from turnout.wire.mapped_address import build_mapped
from turnout.wire.siphash import siphash24
from turnout.wire.stun import BINDING_REQUEST, MAGIC_COOKIE

_EDGE_KEY = bytes(range(16))
_FLOW_KEYS = [0x9E3779B97F4A7C15 * odd % 2**64 for odd in (3, 5, 7, 9, 11, 13)]
_UFRAG, _PASSWORD = b"self", b"a password of the self-test"
_SLOT, _GENERATION, _LANE, _OTHER_LANE, _SHARED_PORT = 1, 1, 20000, 20002, 3478
_ACTIVE = 1  # bpf/abi.h enum owner_state
_SESSION_ID = 1
# Documentation addresses (RFC 5737, RFC 3849): VIP, client, stranger.
_ADDRESSES = (
    ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    ("2001:db8::1", "2001:db8:1::1", "2001:db8:2::1"),
)
_CLIENT_PORT = 40000
_XDP_DROP, _XDP_PASS, _TC_ACT_UNSPEC = 1, 2, -1
_MEDIA = b"\x80\x6f" + bytes(30)
_NOISE = b"\xff" * 32


@dataclass(frozen=True, slots=True)
class _Row:
    """A packet, and what has to become of it."""

    what: str
    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes
    verdict: int
    counted: tuple[str, ...]  # each by one
    ports: tuple[int, int]  # of the packet afterwards


def check_programs(maps: Maps, programs: Mapping[str, int]) -> None:
    """Run the packets; SelfTestError names the first that did not end as it should.

    `maps` are empty ones that the programs use, which are open, by name.
    """
    _fill(maps)
    for vip, client, stranger in _ADDRESSES:
        for row in _rows_in(vip, client, stranger):
            _run(maps, programs["ingress"], row)
        for row in _rows_out(vip, client):
            _run(maps, programs["egress"], row)
    buckets = maps.flows.max_entries
    with SweepProgram(os.dup(programs["sweep"])) as sweeper:
        if sweeper.run(0, buckets) < buckets:
            raise SelfTestError(f"self-test: the sweep did not go through {buckets} buckets")
    for vip, client, _ in _ADDRESSES:
        _run(maps, programs["ingress"], _media_in("media after the sweep", vip, client))
    _check_follow(maps, programs)
    _check_sweep(maps, programs)


def _check_follow(maps: Maps, programs: Mapping[str, int]) -> None:
    """Give the session to another owner, and have its flows follow."""
    session = siphash24(_EDGE_KEY, _UFRAG)
    other = {"slot": _SLOT + 1, "generation": _GENERATION}
    record = maps.sessions.lookup(session) or {}
    owner = {"lane": _OTHER_LANE, "generation": _GENERATION, "state": _ACTIVE}
    maps.owners.update(_SLOT + 1, owner)
    maps.lanes.update(_OTHER_LANE, other)
    maps.sessions.update(session, {**record, "owner": other})
    with FollowProgram(os.dup(programs["follow"])) as follower:
        for number, (vip, client, _) in enumerate(_ADDRESSES):
            flow = FlowToMove(client, _CLIENT_PORT, number, _SLOT, _GENERATION)
            if not follower.run(session, flow):
                raise SelfTestError(f"self-test: the flow of {client} did not follow its session")
            what = "media after a hand-off"
            _run(maps, programs["ingress"], _media_in(what, vip, client, _OTHER_LANE))


def _check_sweep(maps: Maps, programs: Mapping[str, int]) -> None:
    """End the session, and have its flows swept."""
    maps.sessions.delete(siphash24(_EDGE_KEY, _UFRAG))
    with SweepProgram(os.dup(programs["sweep"])) as sweeper:
        sweeper.run(0, maps.flows.max_entries)
    for vip, client, _ in _ADDRESSES:
        caller, here = (client, _CLIENT_PORT), (vip, _SHARED_PORT)
        kept, counted = (_CLIENT_PORT, _SHARED_PORT), _dropped("no_flow")
        what = "media of a session that was swept"
        _run(maps, programs["ingress"], _Row(what, caller, here, _MEDIA, _XDP_DROP, counted, kept))


def _fill(maps: Maps) -> None:
    vips = [build_mapped(vip) for vip, _, _ in _ADDRESSES]
    places = len(maps.settings.lookup(0)["vips"])  # type: ignore[index] # an array: it is there
    maps.settings.update(
        0,
        {
            "edge_key": list(struct.unpack("<QQ", _EDGE_KEY)),
            "flow_keys": _FLOW_KEYS,
            "flow_buckets": maps.flows.max_entries,
            "check_budget": 50,
            "prefix_failures": 50,
            "session_flows": 8,
            "vips": vips + [bytes(16)] * (places - len(vips)),
            "vip_mask": (1 << len(vips)) - 1,
            "shared_port": _SHARED_PORT,
            "lane_first": _LANE,
            "lane_last": _OTHER_LANE,
        },
    )
    owner = {"slot": _SLOT, "generation": _GENERATION}
    maps.owners.update(_SLOT, {"lane": _LANE, "generation": _GENERATION, "state": _ACTIVE})
    maps.lanes.update(_LANE, owner)
    inner, outer = sha1_midstates(_PASSWORD)
    maps.sessions.update(
        siphash24(_EDGE_KEY, _UFRAG),
        {
            "session_id": _SESSION_ID,
            "owner": owner,
            "hmac_inner": list(inner),
            "hmac_outer": list(outer),
        },
    )


def _rows_in(vip: str, client: str, stranger: str) -> list[_Row]:
    here, caller, other = (vip, _SHARED_PORT), (client, _CLIENT_PORT), (stranger, _CLIENT_PORT)
    steered, kept = (_CLIENT_PORT, _LANE), (_CLIENT_PORT, _SHARED_PORT)
    elsewhere = (vip, _SHARED_PORT + 1)
    check, forged = _build_check(_UFRAG, _PASSWORD), _build_check(_UFRAG, b"another password")
    unknown = _build_check(b"nobody", _PASSWORD)
    learned = ("received", "steered__stun_request", "flow__learned")
    return [
        _Row("a check", caller, here, check, _XDP_PASS, learned, steered),
        _media_in("media", vip, client),
        _Row("a forged check", other, here, forged, _XDP_DROP, _dropped("bad_integrity"), kept),
        _Row("an unknown ufrag", other, here, unknown, _XDP_DROP, _dropped("no_session"), kept),
        _Row("a stranger's media", other, here, _MEDIA, _XDP_DROP, _dropped("no_flow"), kept),
        _Row("noise", other, here, _NOISE, _XDP_DROP, _dropped("unknown_class"), kept),
        _Row("another port", caller, elsewhere, _MEDIA, _XDP_PASS, (), (_CLIENT_PORT, 3479)),
    ]


def _media_in(what: str, vip: str, client: str, lane: int = _LANE) -> _Row:
    source, destination = (client, _CLIENT_PORT), (vip, _SHARED_PORT)
    counted, ports = ("received", "steered__rtp"), (_CLIENT_PORT, lane)
    return _Row(what, source, destination, _MEDIA, _XDP_PASS, counted, ports)


def _rows_out(vip: str, client: str) -> list[_Row]:
    caller, ours, others = (client, _CLIENT_PORT), (vip, _LANE), (vip, _LANE + 1)
    back, kept = (_SHARED_PORT, _CLIENT_PORT), (_LANE + 1, _CLIENT_PORT)
    rewritten = ("returned__rewritten",)
    return [
        _Row("media on its way out", ours, caller, _MEDIA, _TC_ACT_UNSPEC, rewritten, back),
        _Row("the host's own", others, caller, _MEDIA, _TC_ACT_UNSPEC, (), kept),
    ]


def _dropped(reason: str) -> tuple[str, str]:
    return "received", f"drop__{reason}"


def _run(maps: Maps, program: int, row: _Row) -> None:
    before = maps.counters.sum_per_cpu(0)
    run = bpf.run_program(program, _build_frame(row.source, row.destination, row.payload))
    after = maps.counters.sum_per_cpu(0)
    counted = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    udp = run.data[14 + (20 if ip_address(row.source[0]).version == 4 else 40) :]
    ports = struct.unpack_from("!HH", udp)
    if _sum_udp(row.source[0], row.destination[0], udp) != 0xFFFF:
        raise SelfTestError(f"self-test: {row.what} from {row.source[0]} has a wrong checksum")
    is_counted = all(counted.get(name) == 1 for name in row.counted)
    if not row.counted:
        is_counted = not counted
    if run.verdict != row.verdict or ports != row.ports or not is_counted:
        raise SelfTestError(
            f"self-test: {row.what} from {row.source[0]} ended with verdict {run.verdict}, ports "
            f"{ports}, counted {counted or 'nothing'}, instead of verdict {row.verdict}, ports "
            f"{row.ports}, counted {', '.join(row.counted) or 'nothing'}"
        )


def _build_frame(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """Build Ethernet, IP and UDP around a payload."""
    udp = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    checksum = 0xFFFF - _sum_udp(source[0], destination[0], udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", checksum) + udp[8:]
    one, other = ip_address(source[0]), ip_address(destination[0])
    if one.version == 4:
        ethernet = 0x0800
        head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(udp), 0, 64, socket.IPPROTO_UDP, 0)
    else:
        ethernet = 0x86DD
        head = struct.pack("!IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64)
    return bytes(12) + struct.pack("!H", ethernet) + head + one.packed + other.packed + udp


def _sum_udp(source: str, destination: str, udp: bytes) -> int:
    """Sum up what the UDP checksum is made of (RFC 768, RFC 8200 8.1): 0xffff if it is right."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    data = addresses + struct.pack("!HH", socket.IPPROTO_UDP, len(udp)) + udp
    words = struct.unpack(f"!{-(-len(data) // 2)}H", data + bytes(len(data) % 2))
    # One's complement: what is carried out comes in again.
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _build_check(ufrag: bytes, password: bytes) -> bytes:
    """Build a Binding request with USERNAME and MESSAGE-INTEGRITY (RFC 8489 section 14.5)."""
    username = ufrag + b":client"
    attributes = struct.pack("!HH", 0x0006, len(username)) + username.ljust(
        -(-len(username) // 4) * 4, b"\0"
    )
    integrity_bytes = 24
    length = len(attributes) + integrity_bytes
    head = struct.pack("!HHI12s", BINDING_REQUEST, length, MAGIC_COOKIE, b"self-test".ljust(12))
    tag = hmac.digest(password, head + attributes, hashlib.sha1)
    return head + attributes + struct.pack("!HH", 0x0008, len(tag)) + tag
