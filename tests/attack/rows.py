"""The rows: what is thrown at the edge, each as frames that the attacker sends over and over.

A row says too what it may cost: which counters may explain a live packet's loss, and whether what
it sends may reach a lane. Called by flood.py (frames) and judge.py (the rest).
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

from attack.frames import (
    DESTINATION,
    HOP_BY_HOP,
    UDP,
    build_udp,
    fragment_extension,
    padded_extension,
    routing_extension,
)
from attack.targets import Targets
from traffic.checks import build_check, malformed, spoil
from traffic.sessions import Tuple

FRAMES = 20_000
_PORTS = range(1024, 65536)

Frames = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Row:
    """One attack."""

    name: str
    title: str
    build: Callable[[Targets], Frames]
    # The sender of a forged live tuple is, to any edge, that client: he spends its packets too.
    shares_rate: bool = False
    # Some of it may be delivered to its owner, who judges it: it is well-formed and by flow.
    delivered: bool = False
    # Sessions of live clients may get flows at forged tuples: their own checks, replayed.
    replays: bool = False
    # All of it is at the cost of one numbered flow.
    one_victim: bool = False
    offers: bool = False


def _strangers(chance: random.Random) -> Iterator[Tuple]:
    """Yield tuples that nobody has; some from the clients' own networks (/24, /48)."""
    while True:
        port = chance.choice(_PORTS)
        host = chance.randrange(1 << 16)
        yield f"198.18.{host >> 8}.{host & 255}", port
        yield f"2001:db8:{host:x}::{chance.randrange(1, 1 << 16):x}", port
        yield f"10.77.0.{100 + host % 100}", port
        yield f"fd77:0:0:{1 + host % 0xFFFF:x}::1", port


def _quiet(_: Targets) -> Frames:
    yield from ()


def _random_ufrags(targets: Targets) -> Frames:
    chance = random.Random("random-ufrags")
    for source in islice(_strangers(chance), FRAMES):
        ufrag = "".join(chance.choices("abcdefghABCDEFGH01234567+/", k=chance.randrange(4, 32)))
        check = build_check(ufrag, "x" * 24, chance.randbytes(12))
        yield targets.wire.udp(source, targets.shared(source[0]), check)


def _bad_integrity(targets: Targets) -> Frames:
    """From strangers, from other live clients' tuples, and from the client's own."""
    chance = random.Random("bad-integrity")
    strangers = _strangers(chance)
    for victim in islice(cycle(targets.live), FRAMES):
        other = chance.choice(targets.live).tuple
        source = chance.choice((next(strangers), next(strangers), other, victim.tuple))
        check = spoil(victim.check, chance)
        yield targets.wire.udp(source, targets.shared(source[0]), check)


def _replays_from_strangers(targets: Targets) -> Frames:
    """Each captured check from a few sources again and again, and from ever new ones."""
    chance = random.Random("replays-from-strangers")
    strangers = _strangers(chance)
    few = list(islice(strangers, 12))
    for victim in islice(cycle(targets.live), FRAMES):
        source = next(strangers) if chance.random() < 0.5 else chance.choice(few)
        yield targets.wire.udp(source, targets.shared(source[0]), victim.check)


def _replays_from_live(targets: Targets) -> Frames:
    for victim in targets.live:
        for other in targets.live:
            if other is not victim:
                source = other.tuple
                yield targets.wire.udp(source, targets.shared(source[0]), victim.check)


def _insider(targets: Targets) -> Frames:
    """Genuine checks of his own sessions from every port of every client, live ones most."""
    chance = random.Random("insider")
    checks = [
        build_check(session.ufrag, session.pwd, chance.randbytes(12))
        for session in targets.insider
        for _ in range(4)
    ]
    live = cycle(targets.live)
    ports = list(_PORTS)
    chance.shuffle(ports)
    for port in ports:
        for source in ((address, port) for address in targets.clients):
            yield targets.wire.udp(source, targets.shared(source[0]), chance.choice(checks))
        source = next(live).tuple
        yield targets.wire.udp(source, targets.shared(source[0]), chance.choice(checks))


def _media(chance: random.Random) -> bytes:
    """Return what has the shape of RTP, RTCP or DTLS: handshake, alert, application data."""
    body = chance.randbytes(chance.choice((40, 120, 400)))
    number = chance.randrange(1 << 16)
    rtp = struct.pack("!BBHII", 0x80, 111, number, number * 960, chance.randrange(1 << 32))
    rtcp = struct.pack("!BBHI", 0x80, 200, 6, chance.randrange(1 << 32))
    kind = chance.choice((20, 21, 22, 23))
    dtls = struct.pack("!BHHHIH", kind, 0xFEFD, chance.randrange(2), 0, number, len(body))
    return chance.choice((rtp, rtp, rtp, rtcp, dtls)) + body


def _media_from_strangers(targets: Targets) -> Frames:
    chance = random.Random("media-from-strangers")
    for source in islice(_strangers(chance), FRAMES):
        yield targets.wire.udp(source, targets.shared(source[0]), _media(chance))


def _media_from_live(targets: Targets) -> Frames:
    chance = random.Random("media-from-live")
    for victim in islice(cycle(targets.live), FRAMES):
        source = victim.tuple
        yield targets.wire.udp(source, targets.shared(source[0]), _media(chance))


def _media_from_one(targets: Targets) -> Frames:
    chance = random.Random("media-from-one")
    source = targets.live[0].tuple
    for _ in range(FRAMES // 10):
        yield targets.wire.udp(source, targets.shared(source[0]), _media(chance))


def _to_lanes(targets: Targets, chance: random.Random, version: int) -> Iterator[tuple[str, bytes]]:
    """Yield sources (strangers, live clients) and datagrams straight to a lane."""
    strangers = (one for one in _strangers(chance) if (":" in one[0]) == (version == 6))
    live = cycle(one.tuple for one in targets.live if (":" in one.tuple[0]) == (version == 6))
    while True:
        source = chance.choice((next(strangers), next(live)))
        lane = chance.choice(targets.lanes)
        payload = chance.choice((_media(chance), chance.choice(targets.live).check))
        yield source[0], build_udp(source, (targets.vips[version], lane), payload)


def _direct(targets: Targets) -> Frames:
    chance = random.Random("direct")
    for version in (4, 6):
        for source, datagram in islice(_to_lanes(targets, chance, version), FRAMES // 2):
            if version == 4:
                yield targets.wire.ipv4(source, targets.vips[4], datagram)
            else:
                yield targets.wire.ipv6(source, targets.vips[6], UDP, datagram)


def _direct_options(targets: Targets) -> Frames:
    chance = random.Random("direct-options")
    padding = [b"\x01" * length for length in range(4, 44, 4)]
    stamps = [b"\x44\x0c\x05\x00" + bytes(8), b"\x07\x07\x04" + bytes(5), b"\x94\x04\x00\x00"]
    for source, datagram in islice(_to_lanes(targets, chance, 4), FRAMES):
        options = chance.choice(padding + stamps)
        yield targets.wire.ipv4(source, targets.vips[4], datagram, options=options)


def _direct_extensions(targets: Targets) -> Frames:
    chance = random.Random("direct-extensions")
    choices = [
        [padded_extension(HOP_BY_HOP)],
        [padded_extension(DESTINATION)],
        [padded_extension(DESTINATION, 30)],
        [routing_extension()],
        [padded_extension(HOP_BY_HOP), padded_extension(DESTINATION), routing_extension()],
        [padded_extension(DESTINATION)] * 9,
        [padded_extension(DESTINATION), fragment_extension(0, 1, more=False)],
    ]
    for source, datagram in islice(_to_lanes(targets, chance, 6), FRAMES):
        extensions = chance.choice(choices)
        yield targets.wire.ipv6(source, targets.vips[6], UDP, datagram, extensions=extensions)


def _direct_fragments(targets: Targets) -> Frames:
    """Whole ones that say they are fragments, in two parts, in tiny parts, in the wrong order."""
    chance = random.Random("direct-fragments")
    wire = targets.wire
    for version in (4, 6):
        for number, (source, datagram) in enumerate(
            islice(_to_lanes(targets, chance, version), FRAMES // 4)
        ):
            cut = chance.choice((8, 16, 24, 32))
            parts = [(0, datagram[:cut], True), (cut, datagram[cut:], False)]
            parts = chance.choice((parts, parts[::-1], [(0, datagram, False)], [parts[0]]))
            for offset, part, more in parts:
                if version == 4:
                    yield wire.ipv4(
                        *(source, targets.vips[4], part),
                        offset=offset,
                        more=more,
                        identification=number & 0xFFFF,
                    )
                else:
                    extension = fragment_extension(offset, number, more=more)
                    yield wire.ipv6(source, targets.vips[6], UDP, part, extensions=[extension])


def _malformed(targets: Targets) -> Frames:
    chance = random.Random("malformed")
    strangers = _strangers(chance)
    for victim in targets.live[:10]:
        # Spoilt first: what is malformed behind the integrity is genuine all the same.
        for payload in malformed(spoil(victim.check, chance), chance):
            source = next(strangers)
            yield targets.wire.udp(source, targets.shared(source[0]), payload)


def _own_flow(targets: Targets) -> Frames:
    chance = random.Random("own-flow")
    for source, check in targets.own:
        yield targets.wire.udp(source, targets.shared(source[0]), check)
    for source, _ in islice(cycle(targets.own), FRAMES):
        yield targets.wire.udp(source, targets.shared(source[0]), _media(chance))


_ALL = (
    Row("quiet", "no attack: what the others are held against", _quiet),
    Row("random-ufrags", "checks with ufrags that nobody has", _random_ufrags),
    Row(
        "bad-integrity",
        "ufrags of live sessions, wrong integrity, from strangers and from live tuples",
        _bad_integrity,
        shares_rate=True,
        delivered=True,
    ),
    Row(
        "replays-from-strangers",
        "captured checks from other sources",
        _replays_from_strangers,
        delivered=True,
        replays=True,
    ),
    Row(
        "replays-from-live",
        "captured checks from other live clients' tuples",
        _replays_from_live,
        delivered=True,
    ),
    Row(
        "insider",
        "genuine checks of his own sessions from live tuples and all ports of the clients",
        _insider,
        delivered=True,
    ),
    Row("media-from-strangers", "RTP, RTCP and DTLS from unknown tuples", _media_from_strangers),
    Row(
        "media-from-live",
        "RTP, RTCP and DTLS from all live clients' tuples",
        _media_from_live,
        shares_rate=True,
        delivered=True,
    ),
    Row(
        "media-from-one",
        "the same, all of it from one live client's tuple",
        _media_from_one,
        shares_rate=True,
        one_victim=True,
        delivered=True,
    ),
    Row("lanes", "straight to lanes", _direct),
    Row("lanes-options", "straight to lanes, behind IPv4 options", _direct_options),
    Row("lanes-extensions", "straight to lanes, behind IPv6 extension headers", _direct_extensions),
    Row("lanes-fragments", "straight to lanes, in fragments", _direct_fragments),
    Row("malformed", "STUN that is none", _malformed),
    Row(
        "own-flow", "RTP and DTLS on flows of his own, a call among them", _own_flow, delivered=True
    ),
    Row(
        "offers",
        "WHIP offers as fast as they are taken, beside checks with unknown ufrags",
        _random_ufrags,
        offers=True,
    ),
)
ROWS = {row.name: row for row in _ALL}
