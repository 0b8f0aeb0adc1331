"""Packets of the small world: what clients, transceivers, routers and strangers send.

Each method returns one step. What mutates packets is mutate.py.
"""

import hashlib
import hmac

from fuzz.frames import (
    FRAGMENT,
    ICMP,
    ICMPV6,
    PLAIN,
    UDP,
    Dress,
    attribute,
    icmp_segment,
    ip_frame,
    ipv4_packet,
    ipv6_packet,
    is_ipv4,
    stun_message,
    udp_frame,
)
from fuzz.steps import LOOPBACK, OUTSIDE, Receive, Send
from fuzz.world import LANES, NO_VIP4, SHARED_PORT, VIP4, VIP6, Address, World

USERNAME, INTEGRITY, INTEGRITY_SHA256 = 0x0006, 0x0008, 0x001C
# Lengths of the message at which something begins: SHA-1's padding, the bound of what is verified.
EDGES = (1372, 1376, 1380, 1396, 1400, 1404)
MESSAGES = (0x0011, 0x0101, 0x0111, 0x0200, 0x0003, 0x0001)
EXTENSIONS = (0, 43, 60, 135)


class Packets:
    """Builds the packets of one world; `recorded` are datagrams of real clients to the server."""

    def __init__(self, world: World, recorded: list[bytes]) -> None:
        self.world = world
        self.rng = world.rng
        self._recorded = recorded

    def request(self) -> Receive:
        """A connectivity check, genuine or nearly."""
        session = self.world.some_session()
        if self.rng.random() < 0.04 and self.world.ended:
            session = self.rng.choice(self.world.ended)
        payload = self._check(session.ufrag, session.password)
        return self._to_shared_port(self.world.some_client(), payload)

    def media(self) -> Receive:
        """RTP, RTCP or DTLS, known by its flow."""
        rng = self.rng
        first = rng.choice((0x80, 0x90, 0xBF, 0x80, 20, 22, 23, 23, 63))
        payload = bytes([first, rng.choice((111, 200, 254))]) + rng.randbytes(rng.randint(0, 200))
        return self._to_shared_port(self.world.some_client(), payload)

    def recording(self) -> Receive:
        """A datagram of a real client."""
        return self._to_shared_port(self.world.some_client(), self.rng.choice(self._recorded))

    def other_stun(self) -> Receive:
        """STUN that names no session: answers, indications, what has no USERNAME, what is none."""
        rng = self.rng
        attributes = [attribute(rng.choice((0x8022, 0x20, 0x8028)), rng.randbytes(8))]
        if rng.random() < 0.4:
            attributes.insert(
                rng.randint(0, 1), attribute(rng.choice((8, 0x1C)), rng.randbytes(20))
            )
        if rng.random() < 0.3:
            name = rng.choice((b"", b"abc:d", b":x", b"nocolon", b"s" * 257 + b":c", b"none:c"))
            attributes.insert(rng.randint(0, 2), attribute(USERNAME, name))
        if rng.random() < 0.2:
            attributes += [attribute(0x8022, b"")] * rng.choice((21, 22, 23, 24))
        message = stun_message(rng.choice(MESSAGES), attributes, transaction=rng.randbytes(12))
        return self._to_shared_port(self.world.some_client(), self._bend(message))

    def nonsense(self) -> Receive:
        """Any first byte, any length."""
        rng = self.rng
        payload = rng.randbytes(rng.choice((0, 1, 3, 12, 19, 20, 40, 1200)))
        return self._to_shared_port(self.world.some_client(), payload)

    def noise(self) -> Receive:
        """A frame of random bytes, from some offset on."""
        rng = self.rng
        frame = self.media().frame[: rng.choice((0, 12, 14, 34, 42))]
        return Receive(frame + rng.randbytes(rng.randint(60, 200)))

    def jumbo(self) -> Receive:
        """More than a page: the program sees only the beginning as memory."""
        rng = self.rng
        if rng.random() < 0.5:
            return self._to_shared_port(self.world.some_client(), b"\x80" + bytes(5000))
        session = self.world.some_session()
        filler = attribute(0xC070, rng.randbytes(4000))
        payload = self._check(session.ufrag, session.password, before=[filler])
        return self._to_shared_port(self.world.some_client(), payload)

    def elsewhere(self) -> Receive:
        """To a lane, to another port, to another host, over another protocol."""
        rng = self.rng
        client = self.world.some_client()
        vip = self.world.vip_for(client) if rng.random() < 0.8 else NO_VIP4
        vip = vip if is_ipv4(vip) == is_ipv4(client[0]) else VIP6
        port = rng.choice((*LANES[:6], LANES[0] - 1, LANES[-1] + 1, 53, SHARED_PORT))
        dress = Dress(more=True) if rng.random() < 0.1 else self._dress(client[0], often=True)
        if rng.random() < 0.1:
            frame = ip_frame(client[0], vip, rng.choice((6, 47, 132)), bytes(20), dress)
        else:
            frame = udp_frame(client, (vip, port), rng.randbytes(rng.randint(0, 30)), dress)
        return Receive(frame, rng.choice((OUTSIDE, OUTSIDE, OUTSIDE, LOOPBACK)))

    def icmp(self) -> Receive:
        """An error that quotes a packet of ours to a client, whole or cut; or something like it."""
        rng = self.rng
        client = self.world.some_client()
        ipv4 = is_ipv4(client[0])
        vip, router = self.world.vip_for(client), client[0] if rng.random() < 0.5 else None
        source = router or (VIP4[:12] + bytes([203, 0, 113, 1]) if ipv4 else VIP6[:15] + b"\x99")
        port = SHARED_PORT if rng.random() < 0.9 else LANES[1]
        ports = port.to_bytes(2, "big") + client[1].to_bytes(2, "big")
        segment = ports + (30).to_bytes(2, "big") + rng.randbytes(2 + 22)
        dress = PLAIN
        if ipv4 and rng.random() < 0.3:
            dress = Dress(options=b"\1" * 8, fragment=rng.choice((0, 0, 100)), more=True)
        build = ipv4_packet if ipv4 else ipv6_packet
        protocol = UDP if rng.random() < 0.95 else 6
        quoted = build(vip, client[0], protocol, segment, dress)
        if rng.random() < 0.2:
            quoted = quoted[: rng.randint(0, len(quoted))]
        errors = (3, 11, 12, 3, 0, 8) if ipv4 else (1, 2, 3, 4, 128, 0)
        target = vip if rng.random() < 0.95 else source
        body = icmp_segment(rng.choice(errors), quoted, source, target)
        if rng.random() < 0.3:
            body = body[:2] + self._checksum().to_bytes(2, "big") + body[4:]
        outer = Dress(more=ipv4 and rng.random() < 0.05)
        return Receive(ip_frame(source, target, ICMP if ipv4 else ICMPV6, body, outer))

    def answer(self) -> Send:
        """What a transceiver sends from its lane, or somebody else from elsewhere."""
        rng = self.rng
        client = self.world.some_client()
        lane = self.world.owners[rng.choice(list(self.world.owners))][1]
        port = lane if rng.random() < 0.93 else rng.choice((SHARED_PORT, 5000, *LANES))
        vip = self.world.vip_for(client)
        if rng.random() < 0.03:
            vip = NO_VIP4 if is_ipv4(vip) else client[0]
        first = rng.choice((0x80, 0x80, 0xBF, 23, 22, 21, 1, 0, 64))
        payload = bytes([first]) + rng.randbytes(rng.choice((0, 12, 60, 172)))
        gso = rng.random() < 0.05
        if gso:
            payload += bytes(1200)
        return Send(udp_frame((vip, port), client, payload, self._dress(client[0])), gso)

    def _to_shared_port(self, client: Address, payload: bytes) -> Receive:
        vip = self.world.vip_for(client)
        dress = self._dress(client[0])
        frame = udp_frame(client, (vip, SHARED_PORT), payload, dress)
        return Receive(frame, LOOPBACK if self.rng.random() < 0.02 else OUTSIDE)

    def _check(self, ufrag: str, password: str, before: list[bytes] | None = None) -> bytes:
        rng = self.rng
        name = f"{ufrag}:{rng.choice(('c', 'clnt', 'longer+client/ufrag'))}".encode()
        pad = rng.choice((b"\0", b" ", b"\xff"))
        attributes = [*(before or []), attribute(USERNAME, name, pad)]
        place = rng.choices((0, 1, 3), (6, 2, 1))[0]
        attributes[0:0] = [self._filler() for _ in range(place)]
        attributes += [self._filler() for _ in range(rng.choice((0, 2, 3, 4)))]
        odd = rng.random()
        if odd < 0.05:
            # The 24th attribute is the last that is looked at.
            wanted = rng.choice((22, 23, 23, 24, 25))
            attributes += [attribute(0x8022, b"") for _ in range(wanted - len(attributes))]
        elif odd < 0.12:
            size = rng.choice((*EDGES, rng.randint(0, 1420)))
            there = 20 + sum(map(len, attributes)) + 24
            attributes.append(attribute(0xC070, rng.randbytes(max((size - there - 4) & ~3, 0))))
        elif odd < 0.14:
            attributes.append(attribute(INTEGRITY_SHA256, rng.randbytes(32)))
        message = self._sign(attributes, password)
        return self._bend(message) if rng.random() < 0.03 else message

    def _sign(self, attributes: list[bytes], password: str) -> bytes:
        """Add MESSAGE-INTEGRITY, now and then a wrong one, and at times what may follow it."""
        rng = self.rng
        before, key = b"".join(attributes), password.encode()
        transaction = rng.randbytes(12)
        length = len(before) + 24
        if rng.random() < 0.01:
            length += rng.choice((-4, 4, 8))
        covered = b"\0\1" + length.to_bytes(2, "big") + b"\x21\x12\xa4\x42" + transaction + before
        digest = hmac.digest(key if rng.random() < 0.97 else key + b"x", covered, hashlib.sha1)
        after = [attribute(0x8028, rng.randbytes(4))] if rng.random() < 0.7 else []
        odd = rng.random()
        integrity = attribute(INTEGRITY, digest)
        if odd < 0.05:
            flipped = bytearray(digest)
            flipped[rng.randrange(20)] ^= 1 << rng.randrange(8)
            integrity = attribute(INTEGRITY, bytes(flipped))
        elif odd < 0.06:
            integrity = b""
        elif odd < 0.07:
            integrity = attribute(INTEGRITY, (digest + digest)[: rng.choice((0, 16, 19, 21, 24))])
        elif odd < 0.08:
            after.append(integrity)
            integrity = attribute(INTEGRITY, rng.randbytes(20))
        elif odd < 0.1:
            after.append(attribute(INTEGRITY_SHA256, rng.randbytes(32)))
        elif odd < 0.11:
            after = [attribute(0x8022, rng.randbytes(rng.randint(0, 60)))] * rng.randint(1, 24)
        everything = [before, integrity, *after]
        return stun_message(1, everything, transaction=transaction)

    def _filler(self) -> bytes:
        """An attribute as clients have: priority, role, nomination, network, software, SPED."""
        rng = self.rng
        kind, size = rng.choice(
            (
                *((0x24, 4), (0x802A, 8), (0x25, 0), (0xC001, 4), (0xC057, 4)),
                *((0x8022, rng.randint(1, 16)), (0xC070, 90)),
            )
        )
        return attribute(kind, rng.randbytes(size), rng.choice((b"\0", b"\xaa")))

    def _bend(self, message: bytes) -> bytes:
        """Most messages as they are; else another cookie or length, cut, or with more behind."""
        rng = self.rng
        what = rng.random()
        if what < 0.6:
            return message
        bent = bytearray(message)
        if what < 0.7:
            bent[rng.randint(4, 7)] ^= 1
        elif what < 0.8:
            bent[2:4] = rng.choice((0, 2, 4, len(message) - 24, len(message) - 16)).to_bytes(
                2, "big"
            )
        elif what < 0.9:
            return message[: rng.randint(1, len(message))]
        return bytes(bent) + rng.randbytes(rng.randint(0, 9))

    def _dress(self, address: bytes, *, often: bool = False) -> Dress:
        rng = self.rng
        if rng.random() > (0.7 if often else 0.1):
            return PLAIN
        vlans = tuple(rng.choice((0, 5, 100, 0x2000)) for _ in range(rng.choice((0, 0, 1, 2, 3))))
        options = b"\1" * (4 * rng.choice((0, 0, 1, 4, 10))) if is_ipv4(address) else b""
        extensions: tuple[tuple[int, bytes], ...] = ()
        if not is_ipv4(address):
            extensions = tuple(
                (rng.choice((*EXTENSIONS, FRAGMENT)), b"\1" * rng.choice((0, 6, 14, 100)))
                for _ in range(rng.choice((0, 0, 1, 2, 3, 7, 8, 9)))
            )
        odd = rng.random()
        return Dress(
            vlans=vlans,
            options=options,
            extensions=extensions,
            fragment=rng.choice((0, 185)) if odd < 0.1 else 0,
            more=odd < 0.15,
            lengths=(
                rng.choice((-60, -8, -1, 1, 40)) if 0.2 < odd < 0.3 else 0,
                rng.choice((-400, -9, -1, 1, 600)) if 0.3 < odd < 0.4 else 0,
            ),
            checksum=self._checksum() if odd > 0.6 else None,
            trailer=bytes(rng.choice((0, 0, 0, 6, 18))),
        )

    def _checksum(self) -> int:
        """Return a checksum: none, any, or one that is 0 or 0xffff when the port is rewritten."""
        rng = self.rng
        lane = self.world.owners[rng.choice(list(self.world.owners))][1]
        ports = rng.choice(((SHARED_PORT, lane), (lane, SHARED_PORT)))
        edge = (ports[1] - ports[0]) % 0xFFFF + rng.choice((-1, 0, 0, 1))
        return rng.choice((0, 0xFFFF, rng.getrandbits(16), edge & 0xFFFF, edge & 0xFFFF))
