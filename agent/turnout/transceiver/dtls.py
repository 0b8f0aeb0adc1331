"""The DTLS server's side of one session, on pyOpenSSL (RFC 6347, RFC 5764). Called by session.py.

One Context serves the process, made at its start with a fresh certificate: a Context per session
costs three times the CPU. Sans-IO apart from OpenSSL's own clock for retransmissions: datagrams in
by `receive`, datagrams out by `take_datagrams`. OpenSSL has traps, each met where it is noted.
"""

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from turnout.errors import WireError
from turnout.transceiver.counters import Counters
from turnout.transceiver.srtp import PROFILES, SrtpKeys, SrtpProfile, split_keying_material
from turnout.wire.dtls import (
    ALERT,
    CERTIFICATE,
    CERTIFICATE_VERIFY,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    CLIENT_KEY_EXCHANGE,
    HANDSHAKE,
    DtlsRecord,
    build_datagrams,
    parse_records,
)

logger = logging.getLogger(__name__)

MTU = 1200
LEFT = "left"
# OpenSSL expects DTLS 1.3 in a later version. What we tell of its records (plaintext epochs, the
# key export's place) holds for 1.2, so it is pinned until 1.3 has been looked at.
_DTLS_1_2 = 0xFEFD
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384"
)
_CERTIFICATE_DAYS = 365
# All that a client has to say in plaintext (RFC 5246 section 7.4).
_CLIENT_MESSAGES = {CLIENT_HELLO, CERTIFICATE, CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha-512": hashes.SHA512(),
    "sha-384": hashes.SHA384(),
    "sha-256": hashes.SHA256(),
}


@dataclass(frozen=True, slots=True)
class DtlsIdentity:
    """The process's Context and its certificate's SHA-256 as SDP writes it ("AB:CD:...")."""

    context: SSL.Context
    fingerprint: str

    @classmethod
    def create(cls) -> "DtlsIdentity":
        """Make a P-256 key, a self-signed certificate and the Context that uses them."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign_certificate(key)
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        # With either of OP_NO_QUERY_MTU and set_ciphertext_mtu alone OpenSSL asks the memory BIO
        # for an MTU and gets nonsense.
        context.set_options(
            SSL.OP_NO_QUERY_MTU
            | SSL.OP_NO_TICKET
            | SSL.OP_NO_RENEGOTIATION
            | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_cipher_list(_CIPHERS)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_tlsext_use_srtp(b":".join(profile.openssl_name for profile in PROFILES))
        # Any certificate passes here: it is the fingerprint in the offer that it must match.
        context.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_arguments: True
        )
        digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        return cls(context, digest)


def _sign_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "turnout")])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_CERTIFICATE_DAYS))
    )
    return builder.sign(key, hashes.SHA256())


def matches_fingerprint(
    certificate: x509.Certificate, fingerprints: tuple[tuple[str, str], ...]
) -> bool:
    """Tell whether the certificate is one the client signaled, as (hash, "AB:CD:...") pairs.

    The strongest hash that was signaled decides; several fingerprints of one hash mean several
    certificates, of which any will do (RFC 8122 section 5).
    """
    for name, algorithm in _HASHES.items():
        signaled = {digest.upper() for offered, digest in fingerprints if offered == name}
        if signaled:
            return certificate.fingerprint(algorithm).hex(":").upper() in signaled
    return False


class DtlsServer:
    """One session's DTLS association; `state` is new, handshaking, connected, closed, failed, left.

    `left`: the session was handed over by the process that had it.
    """

    def __init__(self, identity: DtlsIdentity, counters: Counters) -> None:
        self._context = identity.context
        self._counters = counters
        self._connection: SSL.Connection | None = None
        self._farewell = b""  # the close_notify of an association that another process had
        self._waiting = b""
        self._has_key_exchange = False
        self._was_spoiled = False
        self.state = "new"

    def receive(self, datagram: bytes, admit: Callable[[], bool] = lambda: True) -> None:
        """Take one datagram of the client and count it; raises WireError unless it is records.

        The caller vouches for where it came from: an unproven address could spoil the handshake.
        `admit` is asked before a handshake begins.
        """
        counters = self._counters
        records, begins = self._screen(parse_records(datagram))
        if not records:
            counters.drop__dtls_screened += 1
            return
        if self._connection is None:
            if not begins or self.state != "new":
                counters.drop__dtls_no_handshake += 1
                return
            if not admit():
                counters.drop__handshake_limit += 1
                return
            self._connection = self._connect()
        counters.handled__dtls += 1
        self._connection.bio_write(b"".join(record.data for record in records))
        if self.state == "handshaking":
            self._handshake(self._connection)
        if self.state == "connected":
            self._read(self._connection)

    def _connect(self) -> SSL.Connection:
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        connection.set_ciphertext_mtu(MTU)
        self._has_key_exchange = False
        self.state = "handshaking"
        return connection

    def _screen(self, records: list[DtlsRecord]) -> tuple[list[DtlsRecord], bool]:
        """Leave out plaintext that can only do harm: anybody can write it.

        An alert or a malformed message ends a pyOpenSSL handshake for good; a ChangeCipherSpec
        before the key exchange stalls it silently. Also tells whether a ClientHello is among them.
        """
        counters = self._counters
        kept = []
        begins = False
        for record in records:
            types: list[int] = []
            if record.epoch == 0 and record.content_type == HANDSHAKE:
                try:
                    types = record.handshake_types()
                except WireError:
                    types = []
                if not types or not _CLIENT_MESSAGES.issuperset(types):
                    counters.screened__bad_handshake += 1
                    continue
            if record.epoch == 0 and record.content_type == ALERT:
                counters.screened__plaintext_alert += 1
                continue
            begins = begins or CLIENT_HELLO in types
            self._has_key_exchange = self._has_key_exchange or CLIENT_KEY_EXCHANGE in types
            if record.content_type == CHANGE_CIPHER_SPEC and not self._has_key_exchange:
                counters.screened__early_ccs += 1
                continue
            kept.append(record)
        return kept, begins

    def _handshake(self, connection: SSL.Connection) -> None:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            # This Connection would fail for ever. Its alert stays here too: a stray record of
            # somebody else must not make us end the client's handshake.
            # Told once: whoever spoils it can do so as often as he likes.
            level = logging.DEBUG if self._was_spoiled else logging.INFO
            logger.log(level, "DTLS handshake spoiled, a ClientHello begins it anew: %s", error)
            self._was_spoiled = True
            self._counters.dtls_restarted += 1
            self._connection = None
            self.state = "new"
            return
        self.state = "connected"

    def _read(self, connection: SSL.Connection) -> None:
        while True:
            try:
                connection.recv(2048)  # application data: no data channel is negotiated
            except SSL.WantReadError:
                return
            except SSL.ZeroReturnError:
                self.state = "closed"
                return
            except SSL.Error as error:
                # Fatal, and only the client's own keys make it: OpenSSL reads nothing more, and
                # what came after would pile up in its BIO.
                logger.info("DTLS ended: %s", error)
                self.state = "closed"
                return

    def take_datagrams(self) -> list[bytes]:
        """Return what is to be sent now. The memory BIO knows no datagram edges, so re-cut it."""
        waiting, self._waiting = self._waiting, b""
        if self._connection is None:
            return [waiting] if waiting else []
        stream = b""
        while True:
            try:
                stream += self._connection.bio_read(16384)
            except SSL.WantReadError:
                return build_datagrams(stream, MTU)

    def seconds_to_timeout(self) -> float | None:
        """Seconds until `handle_timeout` is due, None while nothing waits for an answer."""
        if self._connection is None or self.state != "handshaking":
            return None
        return self._connection.DTLSv1_get_timeout()

    def handle_timeout(self) -> None:
        """Retransmit our last flight if its time has come; fails after OpenSSL's 12 tries."""
        if self._connection is None or self.state != "handshaking":
            return
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            logger.info("DTLS handshake gave up: %s", error)
            self._connection = None
            self.state = "failed"

    def derive_keys(
        self, fingerprints: tuple[tuple[str, str], ...]
    ) -> tuple[SrtpProfile, SrtpKeys] | None:
        """Check the client's certificate and export the SRTP keys of a connected association.

        None, and state failed, if the certificate is not the signaled one or the client offered
        none of our SRTP profiles.
        """
        connection = self._connection
        if connection is None or self.state != "connected":
            raise RuntimeError(f"DTLS is {self.state}, it has no keys")
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
        except (ValueError, x509.InvalidVersion) as error:
            # OpenSSL takes certificates that cryptography does not.
            logger.warning("DTLS failed: the client's certificate: %s", error)
            self.state = "failed"
            return None
        if certificate is None or not matches_fingerprint(certificate, fingerprints):
            logger.warning("DTLS failed: the client's certificate is not the one in its offer")
            self.state = "failed"
            return None
        name = connection.get_selected_srtp_profile()
        profile = next((profile for profile in PROFILES if profile.openssl_name == name), None)
        if profile is None:
            logger.warning("DTLS failed: the client offers no SRTP profile of ours")
            self.state = "failed"
            return None
        material = connection.export_keying_material(b"EXTRACTOR-dtls_srtp", profile.material_bytes)
        return profile, split_keying_material(profile, material)

    def close(self) -> None:
        """Queue close_notify, if there is anything to close."""
        self._waiting, self._farewell = self._farewell, b""
        if self._connection is not None and self.state != "handshaking":
            try:
                self._connection.shutdown()
            except SSL.Error as error:
                logger.debug("DTLS close_notify not sent: %s", error)
        self.state = "closed"

    def leave(self) -> bytes:
        """Let go of the association: OpenSSL moves no connection elsewhere.

        Returns its close_notify, the last record under its keys: whoever has the session in the end
        sends it, once. Nothing is sent now.
        """
        farewell = self._farewell
        if self._connection is not None:
            self.take_datagrams()
            self.close()
            farewell = b"".join(self.take_datagrams())
        self.resume(b"")
        return farewell

    def resume(self, farewell: bytes) -> None:
        """Take the place of an association that another process has let go of."""
        self._connection = None
        self._farewell = farewell
        self.state = LEFT

    def release(self) -> None:
        """Let go of OpenSSL's memory, about 95 kB, without waiting for the collector."""
        self._connection = None
