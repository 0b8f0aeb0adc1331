"""Fuzzes the transceiver: datagrams into the real worker, offers into its answer, bytes into wire/.

Called by tests/fuzz/__main__.py (`run`) and, in a short form that is the same each time, by
tests/unit. What is sent: garbage, mutations of what real clients sent, forged addresses, and what
an insider may do who has a session and its keys.
"""

import hmac
import random
import struct
import zlib
from collections.abc import Callable

import pylibsrtp
from aioice import stun
from OpenSSL import SSL

from fuzz.app.budget import Budget, Finding
from fuzz.app.callers import Address, Caller, Room, Sent, open_room
from fuzz.app.mutations import EDGES, mutate
from fuzz.app.offers import fuzz_offers
from results import Result
from turnout.errors import WireError
from turnout.wire import dtls, rtp
from turnout.wire.stun import parse_stun
from unit.transceiver.peer import CREDENTIALS, PAYLOAD_TYPE, build_check, build_probe_answer
from unit.transceiver.test_dtls_hostile import encrypt

VICTIMS = (("198.51.100.1", 4000), ("198.51.100.2", 4000))
INSIDER: Address = ("203.0.113.5", 5000)
OUTSIDER: Address = ("203.0.113.9", 9000)

_KINDS = (0x0001, 0x0011, 0x0101, 0x0111, 0x0003, 0x0200, 0x0300, 0x3FFF)
_ATTRIBUTES = (
    0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x0014, 0x001C, 0x0020, 0x0024, 0x0025, 0x8022,
    0x8028, 0x8029, 0x802A, 0xC001, 0xC057, 0xC070,
)  # fmt: skip
_FIRST_BYTES = (0, 1, 2, 3, 4, 19, 20, 21, 22, 23, 63, 64, 127, 128, 144, 176, 191, 192, 255)
# Steps between two looks at the calls that are not the attacker's, and at what could grow.
_LOOK = 40


def build_stun(rng: random.Random, username: bytes, pwd: str | None) -> bytes:
    """Build a STUN message with attributes as they come; with a right integrity if given `pwd`."""
    values = [(rng.choice(_ATTRIBUTES), rng.randbytes(rng.choice((0, 1, 4, 8, 20, 255))))]
    values *= rng.choice((0, 1, 1, 2, 30))
    values.insert(rng.randrange(len(values) + 1), (0x0006, username))
    if rng.random() < 0.5:
        values.append((0x0025, b""))
    body = b"".join(
        struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
        for kind, value in values
    )
    kind = 1 if rng.random() < 0.7 else rng.choice(_KINDS)
    head = struct.pack("!HHI12s", kind, len(body), 0x2112A442, rng.randbytes(12))
    if pwd is not None:
        head = head[:2] + (len(body) + 24).to_bytes(2) + head[4:]
        digest = hmac.digest(pwd.encode(), head + body, "sha1")
        body += b"\x00\x08\x00\x14" + digest
        if rng.random() < 0.3:
            # What stands behind it is not covered: FINGERPRINT, which must be right, or anything.
            head = head[:2] + (len(body) + 8).to_bytes(2) + head[4:]
            sum_ = zlib.crc32(head + body) ^ 0x5354554E
            body += struct.pack("!HHI", rng.choice((0x8028, 0x8028, 0x0006)), 4, sum_)
    return head + body


def build_rtp(rng: random.Random) -> bytes:
    """Build RTP that is valid, or nearly: CSRCs, extensions, padding, any payload type."""
    first = 0x80 | rng.choice((0, 0, 0x10, 0x20, 0x30, 0x0F, 0x1F, 0x3F))
    second = rng.choice((PAYLOAD_TYPE, PAYLOAD_TYPE, 110, 0, 127, 0x80 | PAYLOAD_TYPE, 72))
    ssrc = rng.choice((7, 7, 8, rng.randrange(1 << 32)))
    head = struct.pack(
        "!BBHII", first, second, rng.randrange(1 << 16), rng.randrange(1 << 32), ssrc
    )
    head += rng.randbytes(4 * (first & 0x0F))
    if first & 0x10:
        words = rng.choice((0, 1, 2, 300, 0xFFFF))
        head += struct.pack("!HH", 0xBEDE, words) + rng.randbytes(min(4 * words, 400))
    return (
        head + rng.randbytes(rng.choice((0, 1, 4, 160, 1200, 1370))) + bytes((rng.choice(EDGES),))
    )


def build_rtcp(rng: random.Random) -> bytes:
    """Build compound RTCP that is valid, or nearly; seldom a BYE, which ends the call."""
    compound = b""
    for _ in range(rng.choice((1, 1, 2, 5))):
        kind = rng.choice((200, 201, 202, 203, 204, 205, 206, 207)) if rng.random() < 0.3 else 201
        count = rng.choice((0, 0, 1, 2, 31))
        body = rng.randbytes(4 * rng.choice((0, 1, 6, 7, 13, 40)))
        words = len(body) // 4 if rng.random() < 0.8 else rng.choice((0, 1, 0xFFFF))
        first = 0x80 | (0x20 if rng.random() < 0.1 else 0) | count
        compound += struct.pack("!BBH", first, kind, words) + body
    return compound


class Attack:
    """Two calls that must go on, an insider with a call of his own, and a stranger."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.rng = room.rng
        self.victims = [Caller(room, address) for address in VICTIMS]
        self.insider = Caller(room, INSIDER)
        for caller in (*self.victims, self.insider):
            caller.connect()
        self.attacks: list[Callable[[], None]] = [
            self.send_garbage,
            self.send_mutated,
            self.send_mutated,
            self.replay,
            self.forge_check,
            self.check_as_insider,
            self.send_media_as_insider,
            self.send_media_as_insider,
            self.send_dtls_as_insider,
            self.shake_hands,
        ]

    def step(self, number: int) -> None:
        """Attack once; the calls talk and are looked at from time to time. Raises Finding."""
        self.rng.choice(self.attacks)()
        self.room.pass_time(self.rng.choice((0, 0, 0.001, 0.02, 0.1)))
        if number % _LOOK == 0:
            for victim in self.victims:
                victim.require_echo()
            self.room.require_bounds()
        if self.insider.session.ended:
            self.insider.forget()
            self.insider = Caller(self.room, INSIDER)
            self.insider.connect()

    def _from(self) -> Address:
        """Return whom an attacker's datagram says it is from: himself, a live call, anybody."""
        anybody = (f"203.0.113.{self.rng.randrange(250)}", self.rng.choice((1, 1024, 65535)))
        return self.rng.choice((OUTSIDER, INSIDER, *VICTIMS, anybody))

    def _unanswered(self, data: bytes, address: Address) -> None:
        """Send what proves nothing: the transceiver must not say a word."""
        sent = self.room.deliver(data, address)
        if not sent or self._is_authentic(data):
            self._allow_stun_only(sent)
            return
        # A probe that an authentic check began may have waited: for its time, or for bytes of any
        # kind that give it room. The room sees to it that they do not go far.
        probes = {flow.probe for flow in self.room.worker.probes.values()}
        if not {one.data for one in sent} <= probes:
            raise Finding(f"{data.hex()} from {address} is answered by {sent[0].data.hex()}")

    def _allow_stun_only(self, sent: list[Sent]) -> None:
        # An insider's own address is where his own DTLS and media may go.
        wrong = [one for one in sent if one.data[0] > 3 and one.address != INSIDER]
        if wrong or len(sent) > 3:
            raise Finding(f"{len(sent)} datagrams for one, {wrong[:1]} to whom has proven nothing")

    def _is_authentic(self, data: bytes) -> bool:
        """Whether it is a check under a live password, be it captured, as aioice judges."""
        try:
            parsed = parse_stun(data)
            message = stun.parse_message(parsed.data)
        except (WireError, ValueError, struct.error):
            return False
        callers = (*self.victims, self.insider)
        return any(message.check_message_integrity(caller.pwd.encode()) for caller in callers)

    def send_garbage(self) -> None:
        size = self.rng.choice((0, 1, 2, 11, 12, 13, 20, 21, 64, 200, 1200, 2047, 3000))
        data = bytearray(self.rng.randbytes(size))
        if data:
            data[0] = self.rng.choice(_FIRST_BYTES)
        if size > 8 and data[0] < 4:
            data[4:8] = b"\x21\x12\xa4\x42"
        self._unanswered(bytes(data), self._from())

    def send_mutated(self) -> None:
        captured = self.room.captured
        self._unanswered(mutate(self.rng, self.rng.choice(captured), captured), self._from())

    def replay(self) -> None:
        """Send again what was sent, from anywhere: only a check is answered."""
        self._unanswered(self.rng.choice(self.room.captured), self._from())

    def forge_check(self) -> None:
        """A check that names a live ufrag, with a password that is not its own."""
        ufrag = self.rng.choice((*self.victims, self.insider)).ufrag
        pwd = self.rng.choice((None, "x" * 24, self.insider.pwd[::-1]))
        username = f"{ufrag}:{CREDENTIALS.remote_ufrag}".encode()
        self._unanswered(build_stun(self.rng, username, pwd), self._from())

    def check_as_insider(self) -> None:
        """A check under one's own password, from a live call's address or any other."""
        ufrag, pwd = self.insider.ufrag, self.insider.pwd
        username = f"{ufrag}:{CREDENTIALS.remote_ufrag}".encode()
        if self.rng.random() < 0.3:
            username = mutate(self.rng, username)
        data = build_stun(self.rng, username[:500], pwd)
        if self.rng.random() < 0.3:
            role = self.rng.choice(("ICE-CONTROLLED", "ICE-CONTROLLING"))
            data = build_check(ufrag=ufrag, pwd=pwd, role=role)
        address = self._from()
        sent = self.room.deliver(data, address)
        self._allow_stun_only(sent)
        self._answer_probes(sent)

    def _answer_probes(self, sent: list[Sent]) -> None:
        """The insider hears what is sent to him, and may answer it wrongly."""
        for data, address in sent:
            if address == INSIDER and parse_stun(data).kind == 1:
                answer = build_probe_answer(data, address)
                if self.rng.random() < 0.5:
                    answer = mutate(self.rng, answer)
                self.room.deliver(answer, address)

    def send_media_as_insider(self) -> None:
        """RTP and RTCP under one's own key, as odd as libsrtp takes it, or broken after that."""
        is_rtcp = self.rng.random() < 0.5
        plain = build_rtcp(self.rng) if is_rtcp else build_rtp(self.rng)
        tx = self.insider.srtp.tx
        try:
            data = tx.protect_rtcp(plain) if is_rtcp else tx.protect(plain)
        except (pylibsrtp.Error, ValueError):
            return  # libsrtp itself does not take it
        if self.rng.random() < 0.2:
            data = mutate(self.rng, data)
        address = self.rng.choice((INSIDER, INSIDER, INSIDER, self._from()))
        self._allow_stun_only(self.room.deliver(data, address))

    def send_dtls_as_insider(self) -> None:
        """Records under one's own DTLS keys, and plaintext ones, in a call that is connected."""
        rng = self.rng
        plain = rng.choice((b"", b"\x01\x00", b"\x02\x28", b"\x01\x64", rng.randbytes(100)))
        if rng.random() < 0.7:
            kind = rng.choice((20, 21, 22, 23, 24))
            number = rng.randrange(1 << 32)
            data = encrypt(self.insider.dtls.connection, kind, plain, number)
        else:
            head = struct.pack("!BHHHIH", rng.choice((20, 21, 22, 23)), 0xFEFD, 0, 0, 9, len(plain))
            data = head + plain
        self.room.deliver(data, INSIDER)

    def shake_hands(self) -> None:
        """A newcomer's handshake into which strangers and the newcomer himself send rubbish."""
        newcomer = Disturbed(self.room, ("203.0.113.77", self.rng.randrange(1, 1 << 16)), self)
        try:
            newcomer.connect()
        except (Finding, SpoiledHandshake) as error:
            if isinstance(error, Finding) and "no handshake" not in str(error):
                raise
        if not newcomer.session.ended:
            newcomer.leave()
        else:
            newcomer.forget()


class SpoiledHandshake(Exception):
    """The client's OpenSSL gave up; what the server's did is looked at all the same."""


class Disturbed(Caller):
    """A client whose datagrams come with others, and not as it wrote them."""

    def __init__(self, room: Room, address: Address, attack: Attack) -> None:
        super().__init__(room, address)
        self._attack = attack

    def send(self, data: bytes) -> None:
        rng = self.room.rng
        captured = [one for one in self.room.captured if 20 <= one[0] < 64]
        for _ in range(rng.choice((0, 0, 1, 3))):
            stray = rng.choice([data, *captured])
            stray = mutate(rng, stray, captured) if rng.random() < 0.8 else stray
            if 20 <= (stray or b"\0")[0] < 64:
                self.room.deliver(stray, rng.choice((self.address, OUTSIDER)))
        if rng.random() < 0.9:
            super().send(data)

    def receive(self, data: bytes) -> None:
        try:
            super().receive(data)
        except SSL.Error as error:
            raise SpoiledHandshake from error


def fuzz_datagrams(seed: int, budget: Budget) -> int:
    """Attack a worker until the budget is spent; returns the datagrams it took. Raises Finding."""
    with open_room(seed) as room:
        attack = Attack(room)
        while budget.spend():
            attack.step(budget.steps)
        return room.datagrams


_PARSERS: tuple[Callable[[bytes], object], ...] = (
    parse_stun,
    rtp.parse_rtp,
    rtp.parse_rtcp,
    dtls.parse_records,
    lambda data: [record.handshake_types() for record in dtls.parse_records(data)],
    lambda data: dtls.build_datagrams(data, 1200),
)


def fuzz_parsers(seed: int, budget: Budget) -> int:
    """Give bytes to every parser of wire/: a value or WireError; returns how many were given."""
    rng = random.Random(seed)
    build = (build_rtp, build_rtcp, lambda rng: build_stun(rng, b"server:client", "p" * 24))
    hello = b"\x16\xfe\xfd" + bytes(8) + b"\x00\x20\x01\x00\x00\x14" + bytes(5) + b"\x00\x14"
    while budget.spend():
        data = rng.choice(build)(rng) if rng.random() < 0.8 else hello + rng.randbytes(20)
        if rng.random() < 0.7:
            data = mutate(rng, data, (hello,))
        for parse in _PARSERS:
            try:
                parse(data)
            except WireError:
                continue
            except Exception as error:
                raise Finding(f"{error!r} for {data.hex()}") from error
    return budget.steps


def run(seconds: float, seed: int) -> list[Result]:
    """Fuzz all three; each stops at what it finds."""
    parts: tuple[tuple[str, float, Callable[[int, Budget], int]], ...] = (
        ("transceiver: datagrams", 0.7, fuzz_datagrams),
        ("transceiver: offers", 0.2, fuzz_offers),
        ("wire: datagrams", 0.1, fuzz_parsers),
    )
    results = []
    for name, share, fuzz in parts:
        budget = Budget(seconds=seconds * share)
        try:
            taken: object = fuzz(seed, budget)
            results.append(Result(name, taken, "no finding"))
        except Finding as finding:
            told = f"seed {seed}, step {budget.steps}: {finding}"
            results.append(Result(name, told, "no finding", met=False))
    return results
