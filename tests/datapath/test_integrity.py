"""MESSAGE-INTEGRITY: what a request must carry to make a flow, in every legal shape, no other."""

import hashlib
import hmac
from collections.abc import Callable

import packets as p
import pytest
from scapy.packet import Packet

from datapath import OTHER_SESSION, XDP_DROP, XDP_PASS, Datapath

STEERED = {"received": 1, "steered__stun_request": 1}
LEARNED = STEERED | {"flow__learned": 1}

USER = p.attribute(p.USERNAME, b"srvr:clnt")
PRIORITY = p.attribute(p.PRIORITY, bytes(4))
SHA256 = p.attribute(p.MESSAGE_INTEGRITY_SHA256, bytes(32))
RIGHT = p.sign(p.stun(p.BINDING_REQUEST, USER, PRIORITY))
UNSIGNED = p.stun(p.BINDING_REQUEST, USER, PRIORITY)
DIGEST = RIGHT[-20:]
# DTLS in STUN; what makes a check of 1,400 bytes, the longest that is verified.
SPED = 0xC070


def attributes_before(size_bytes: int) -> bytes:
    """One attribute that puts USERNAME so much later."""
    return p.attribute(p.SOFTWARE, bytes(size_bytes - 4))


def check_of(size_bytes: int) -> bytes:
    return p.check("srvr:clnt", attributes_before(size_bytes - len(p.check("srvr:clnt"))))


LEGAL = {
    "no-fingerprint": RIGHT,
    "username-only": p.sign(p.stun(p.BINDING_REQUEST, USER)),
    "fingerprint": p.add_fingerprint(RIGHT),
    "padding-not-zero": p.sign(
        p.stun(
            p.BINDING_REQUEST,
            p.attribute(p.SOFTWARE, b"x", pad=b"\xff"),
            p.attribute(p.USERNAME, b"srvr:clnt", pad=b" "),
        )
    ),
    "client-ufrag-256": p.check(f"srvr:{'c' * 256}"),
    "username-at-40": p.check("srvr:clnt", attributes_before(20)),
    "username-at-44": p.check("srvr:clnt", attributes_before(24)),
    "unknown-attributes": p.sign(
        p.stun(
            p.BINDING_REQUEST,
            USER,
            *[
                p.attribute(kind, bytes(size))
                for kind, size in ((0xC057, 4), (0xC001, 7), (0x25, 0))
            ],
        )
    ),
    "attributes-after-it": p.extend(RIGHT, p.attribute(p.SOFTWARE, b"tail"), PRIORITY),
    "sha256-after-it": p.extend(RIGHT, SHA256),
    "sha256-and-fingerprint-after-it": p.add_fingerprint(p.extend(RIGHT, SHA256)),
    "another-integrity-after-it": p.extend(RIGHT, p.attribute(p.MESSAGE_INTEGRITY, bytes(20))),
    "another-username-after-it": p.extend(RIGHT, p.attribute(p.USERNAME, b"nobody:clnt")),
    "bytes-behind-the-message": RIGHT + b"\x01\x02\x03",
    "1400-bytes": check_of(1400),
    "1400-bytes-most-of-them-after-it": p.extend(
        RIGHT, p.attribute(SPED, bytes(1396 - len(RIGHT)))
    ),
    "dtls-in-stun": p.check("srvr:clnt", p.attribute(SPED, bytes(1187))),
}


def with_integrity(value: bytes, message: bytes = UNSIGNED) -> bytes:
    return p.extend(message, p.attribute(p.MESSAGE_INTEGRITY, value))


WRONG = {
    "absent": UNSIGNED,
    "zeros": with_integrity(bytes(20)),
    "of-another-password": p.check("srvr:clnt", password=b"another password of 22 chars"),
    "of-no-password": p.check("srvr:clnt", password=b""),
    **{
        f"of-{size}-bytes": with_integrity((DIGEST + bytes(20))[:size])
        for size in (0, 4, 16, 19, 21, 24, 32)
    },
    "cut-at-the-end": p.extend(UNSIGNED, p.attribute(p.MESSAGE_INTEGRITY, DIGEST[:16], length=20)),
    "cut-behind-its-header": p.extend(UNSIGNED, p.attribute(p.MESSAGE_INTEGRITY, b"", length=20)),
    "cut-in-its-header": p.extend(UNSIGNED, b"\x00\x08\x00\x14"),
    "the-25th-attribute": p.sign(p.stun(p.BINDING_REQUEST, USER, *[PRIORITY] * 23)),
    "sha256-only": p.extend(UNSIGNED, SHA256),
    "sha1-under-the-type-of-sha256": p.extend(
        UNSIGNED, p.attribute(p.MESSAGE_INTEGRITY_SHA256, DIGEST)
    ),
    "wrong-one-before-the-right-one": p.sign(with_integrity(bytes(20))),
    "short-one-before-the-right-one": p.sign(with_integrity(bytes(16))),
    "of-the-length-with-fingerprint": p.add_fingerprint(
        with_integrity(
            hmac.digest(p.PASSWORD, p.extend(UNSIGNED, bytes(32))[: len(UNSIGNED)], hashlib.sha1)
        )
    ),
    "over-an-attribute-that-is-left-out": p.stun(
        p.BINDING_REQUEST, USER, p.attribute(p.MESSAGE_INTEGRITY, DIGEST)
    ),
    "over-an-attribute-less": p.stun(
        p.BINDING_REQUEST, USER, PRIORITY, PRIORITY, p.attribute(p.MESSAGE_INTEGRITY, DIGEST)
    ),
    "cut-attribute-before-it": p.extend(
        p.stun(p.BINDING_REQUEST, USER), p.attribute(p.SOFTWARE, b"", length=400), RIGHT[-24:]
    ),
}

FAMILIES = pytest.mark.parametrize("frame_of", [p.ip4, p.ip6], ids=["v4", "v6"])


@pytest.fixture
def edge(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr")
    return datapath


@FAMILIES
@pytest.mark.parametrize("message", LEGAL.values(), ids=LEGAL)
def test_legal_variant_makes_the_flow(
    edge: Datapath, message: bytes, frame_of: Callable[[bytes], Packet]
) -> None:
    frame = frame_of(message)

    outcome = edge.receive(bytes(frame))

    assert (outcome.verdict, outcome.counted) == (XDP_PASS, LEARNED)
    assert outcome.frame == p.to_lane(frame)
    assert edge.session("srvr")["failures"] == 0


@FAMILIES
@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_wrong_integrity_is_dropped_and_makes_nothing(
    edge: Datapath, message: bytes, frame_of: Callable[[bytes], Packet]
) -> None:
    frame = bytes(frame_of(message))

    outcome = edge.receive(frame)

    assert outcome.counted == {"received": 1, "drop__bad_integrity": 1}
    assert (outcome.verdict, outcome.frame) == (XDP_DROP, frame)
    assert edge.flows() == 0
    assert edge.session("srvr")["failures"] == 1


@pytest.mark.parametrize("covered", [*range(40, 404, 4), *range(1300, 1380, 4)])
def test_integrity_behind_any_number_of_bytes(edge: Datapath, covered: int) -> None:
    """Around every block of SHA-1: header, USERNAME of 16 bytes, and one more attribute."""
    filler = p.attribute(p.SOFTWARE, bytes(range(256)) * 6, length=covered - 40)[: covered - 36]
    message = p.sign(p.stun(p.BINDING_REQUEST, USER, filler))
    assert len(message) == covered + 24
    for at in (covered - 1, covered + 4, covered + 23):
        flipped = bytearray(message)
        flipped[at] ^= 0x80
        bad = edge.receive(bytes(p.ip4(bytes(flipped)))).counted
        assert bad in ({"received": 1, f"drop__{why}": 1} for why in ("bad_integrity", "bad_stun"))

    assert edge.receive(bytes(p.ip4(message))).counted == LEARNED


# Transaction id, client ufrag, padding of USERNAME, value of PRIORITY, digest.
@pytest.mark.parametrize("at", [*range(8, 20), *range(29, 36), *range(40, 44), *range(48, 68)])
@pytest.mark.parametrize("bit", [0, 7])
def test_flipped_bit_is_bad_integrity(edge: Datapath, at: int, bit: int) -> None:
    flipped = bytearray(RIGHT)
    flipped[at] ^= 1 << bit

    outcome = edge.receive(bytes(p.ip4(bytes(flipped))))

    assert outcome.counted == {"received": 1, "drop__bad_integrity": 1}
    assert edge.flows() == 0


def test_no_flipped_bit_makes_a_flow(edge: Datapath) -> None:
    """Wherever it is: in what is covered, in its lengths and types, in the header."""
    for bit in range(len(RIGHT) * 8):
        edge.pass_ticks(1)
        flipped = bytearray(RIGHT)
        flipped[bit // 8] ^= 1 << bit % 8
        outcome = edge.receive(bytes(p.ip4(bytes(flipped))))
        assert outcome.verdict == XDP_DROP, bit
    assert edge.flows() == 0


def test_message_too_long_to_verify_is_dropped(edge: Datapath) -> None:
    outcome = edge.receive(bytes(p.ip4(check_of(1404))))

    assert outcome.counted == {"received": 1, "drop__stun_too_long": 1}
    assert edge.flows() == 0
    # It cost nothing: neither a check of the budget nor a failure.
    assert (edge.session("srvr")["checks"], edge.session("srvr")["failures"]) == (0, 0)


def test_username_behind_the_integrity_names_nobody(edge: Datapath) -> None:
    message = p.extend(p.sign(p.stun(p.BINDING_REQUEST, PRIORITY)), USER)

    outcome = edge.receive(bytes(p.ip4(message)))

    assert outcome.counted == {"received": 1, "drop__no_flow": 1}


@pytest.mark.parametrize("message", [UNSIGNED, check_of(1404), WRONG["zeros"]])
def test_sessions_own_flow_needs_no_integrity(edge: Datapath, message: bytes) -> None:
    edge.receive(bytes(p.ip4(RIGHT)))
    edge.pass_ticks(1)

    outcome = edge.receive(bytes(p.ip4(message)))

    assert outcome.counted == STEERED
    assert edge.session("srvr")["checks"] == 1
    flow = edge.flow()
    assert flow is not None
    assert flow["age"] == edge.tick % 256


def test_another_sessions_flow_needs_it(edge: Datapath) -> None:
    edge.receive(bytes(p.ip4(RIGHT)))
    edge.add_session("other", OTHER_SESSION)
    unsigned = p.stun(p.BINDING_REQUEST, p.attribute(p.USERNAME, b"other:clnt"))

    outcome = edge.receive(bytes(p.ip4(unsigned)))

    assert outcome.counted == {"received": 1, "drop__bad_integrity": 1}


def test_password_of_another_session_is_wrong(edge: Datapath) -> None:
    edge.add_session("other", OTHER_SESSION, password=b"the password of the other")
    message = p.check("other:clnt")

    outcome = edge.receive(bytes(p.ip4(message)))

    assert outcome.counted == {"received": 1, "drop__bad_integrity": 1}


@pytest.mark.parametrize("length", [22, 55, 56, 63, 64, 65, 128, 256])
def test_password_of_any_length(datapath: Datapath, length: int) -> None:
    """Above 64 bytes HMAC's key is a hash of it (RFC 2104)."""
    password = bytes(ord("0") + at % 10 for at in range(length))
    datapath.add_session("srvr", password=password)
    shorter = p.ip4(p.check("srvr:c", password=password[:-1]))
    assert "drop__bad_integrity" in datapath.receive(bytes(shorter)).counted

    assert datapath.receive(bytes(p.ip4(p.check("srvr:c", password=password)))).counted == LEARNED


def test_request_of_rfc_5769(datapath: Datapath) -> None:
    """The vector of section 2.1, as it is printed there."""
    message = bytes.fromhex(
        "000100582112a442b7e7a701bc34d686fa87dfae"
        "802200105354554e207465737420636c69656e74"
        "002400046e0001ff80290008932ff9b151263b36"
        "000600096576746a3a68367659202020"
        "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
        "80280004e57a3bcf"
    )
    datapath.add_session("evtj", password=b"VOkJxbRl1RmTxUk/WvJxBt")

    assert datapath.receive(bytes(p.ip4(message))).counted == LEARNED
