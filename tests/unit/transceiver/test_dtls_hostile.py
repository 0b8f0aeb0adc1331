"""A client with keys of its own that wants to do harm: what it encrypts may be anything."""

import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from turnout.wire.sdp import Fingerprint
from unit.transceiver.peer import Line, PeerIdentity, negotiate

CRYPTO: Any = crypto
ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
JUNK = bytes([APPLICATION_DATA]) + b"\xfe\xfd\0\1" + (200).to_bytes(6) + (1300).to_bytes(2)


def tls12_prf(secret: bytes, seed: bytes, length: int) -> bytes:
    """P_SHA256 (RFC 5246 section 5)."""
    block, out = seed, b""
    while len(out) < length:
        block = hmac.new(secret, block, hashlib.sha256).digest()
        out += hmac.new(secret, block + seed, hashlib.sha256).digest()
    return out[:length]


def encrypt(client: Any, content_type: int, plain: bytes, number: int = 100) -> bytes:
    """Build a record of epoch 1 under the client's AES-128-GCM keys (RFC 5288)."""
    seed = b"key expansion" + client.server_random() + client.client_random()
    block = tls12_prf(client.master_key(), seed, 40)
    explicit = (1).to_bytes(2) + number.to_bytes(6)
    extra = explicit + bytes([content_type]) + b"\xfe\xfd" + len(plain).to_bytes(2)
    sealed = AESGCM(block[:16]).encrypt(block[32:36] + explicit, plain, extra)
    body = explicit + sealed
    return bytes([content_type]) + b"\xfe\xfd" + explicit + len(body).to_bytes(2) + body


@pytest.mark.parametrize(
    ("content_type", "plain"),
    [
        (ALERT, b"\x07\x00"),
        (ALERT, b"\x01"),
        (ALERT, b"\x01\x64"),
        (HANDSHAKE, b"\x0b\0\0\3\0\0\0\0\0\0\0\3abc"),
        (HANDSHAKE, b"\x0b\0"),
        (APPLICATION_DATA, b"hello"),
        (APPLICATION_DATA, b""),
    ],
    ids=["alert-7", "alert-cut", "no-renegotiation", "old-handshake", "handshake-cut", "data", "0"],
)
def test_encrypted_record_of_any_kind_ends_the_session_or_is_read_past(
    content_type: int, plain: bytes
) -> None:
    line = Line()
    line.connect()

    line.deliver(encrypt(line.dtls.connection, content_type, plain))
    for _ in range(0 if line.ended else 50):
        line.deliver(JUNK + bytes(1300))

    if not line.ended:
        # Still reading, so nothing piles up: it hears the close_notify behind all that.
        line.deliver(encrypt(line.dtls.connection, ALERT, b"\x01\x00", number=101))
    assert line.ended == ["dtls_closed"]


def test_certificate_that_only_openssl_can_read_fails_the_session() -> None:
    """X.509 version 7: OpenSSL shakes hands with it, cryptography does not parse it."""
    identity = PeerIdentity()
    der = identity.certificate.public_bytes(Encoding.DER).replace(
        b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1
    )
    digest = hashlib.sha256(der).digest().hex(":").upper()
    line = Line(negotiated=negotiate("sendrecv", Fingerprint("sha-256", digest)))
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    certificate = CRYPTO._lib.d2i_X509_bio(
        CRYPTO._lib.BIO_new_mem_buf(der, len(der)), CRYPTO._ffi.NULL
    )
    assert CRYPTO._lib.SSL_CTX_use_certificate(context._context, certificate) == 1
    context.use_privatekey(identity.key)
    context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")
    context.set_verify(SSL.VERIFY_NONE)
    line.dtls.connection = SSL.Connection(context)
    line.dtls.connection.set_connect_state()
    line.dtls.connection.set_ciphertext_mtu(1200)
    line.prove()

    line.shake(line.dtls.start())

    assert line.ended == ["failed"]
