"""A client without IO, and a line between it and one session: for tests of the transceiver.

`Peer` is the client's half of ICE, DTLS and SRTP. `Line` stands where the worker stands in the
process: it demultiplexes, keeps what is sent, and lets time pass only when a test says so.
"""

import datetime as dt
import secrets
from dataclasses import dataclass, field

from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from turnout.transceiver.answer import Negotiated
from turnout.transceiver.app import AppFactory
from turnout.transceiver.counters import Counters
from turnout.transceiver.credentials import Credentials
from turnout.transceiver.dtls import DtlsIdentity
from turnout.transceiver.echo import Echo
from turnout.transceiver.flow import Address, Flow
from turnout.transceiver.handshakes import Handshakes
from turnout.transceiver.session import Session
from turnout.transceiver.srtp import PROFILES, Srtp, split_keying_material
from turnout.wire.dtls import build_datagrams
from turnout.wire.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from turnout.wire.sdp import Codec, Fingerprint, IceCredentials
from turnout.wire.stun import BINDING_REQUEST, BINDING_SUCCESS, parse_stun

CREDENTIALS = Credentials("serverufrag", "s" * 24, "clientufrag", "c" * 24)
CLIENT: Address = ("198.51.100.1", 4000)
OTHER: Address = ("198.51.100.2", 5000)
IDENTITY = DtlsIdentity.create()
PAYLOAD_TYPE = 111
GCM = b"SRTP_AEAD_AES_128_GCM"


class PeerIdentity:
    """A client's certificate."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )

    def fingerprint(self, name: str = "sha-256") -> Fingerprint:
        algorithm = {"sha-256": hashes.SHA256(), "sha-512": hashes.SHA512()}[name]
        return Fingerprint(name, self.certificate.fingerprint(algorithm).hex(":").upper())


PEER_IDENTITY = PeerIdentity()


class DtlsClient:
    """A DTLS client on pyOpenSSL; `hello_bytes` are added to its ClientHello."""

    def __init__(
        self,
        identity: PeerIdentity = PEER_IDENTITY,
        *,
        mtu: int = 1200,
        hello_bytes: int = 0,
        profiles: bytes = b"SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80",
    ) -> None:
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        if profiles:
            context.set_tlsext_use_srtp(profiles)
        if hello_bytes:
            context.set_alpn_protos([b"x" * 99] * (hello_bytes // 100))
        context.set_verify(SSL.VERIFY_NONE)
        self._mtu = mtu
        self.connection = SSL.Connection(context)
        self.connection.set_connect_state()
        self.connection.set_ciphertext_mtu(mtu)
        self.is_connected = False
        self.is_closed = False

    def start(self) -> list[bytes]:
        """Return the ClientHello's datagrams."""
        return self._advance()

    def receive(self, datagram: bytes) -> list[bytes]:
        self.connection.bio_write(datagram)
        return self._advance()

    def retransmit(self) -> list[bytes]:
        """Return the last flight again if its time has come."""
        self.connection.DTLSv1_handle_timeout()
        return self._take()

    def close(self) -> list[bytes]:
        self.connection.shutdown()
        return self._take()

    def _advance(self) -> list[bytes]:
        try:
            if not self.is_connected:
                self.connection.do_handshake()
                self.is_connected = True
            self.connection.recv(2048)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.is_closed = True
        return self._take()

    def _take(self) -> list[bytes]:
        stream = b""
        while True:
            try:
                stream += self.connection.bio_read(16384)
            except SSL.WantReadError:
                return build_datagrams(stream, self._mtu)

    def derive_srtp(self) -> Srtp:
        name = self.connection.get_selected_srtp_profile()
        profile = next(profile for profile in PROFILES if profile.openssl_name == name)
        keys = split_keying_material(
            profile,
            self.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", profile.material_bytes),
        )
        return Srtp(profile, receive_key=keys.server, send_key=keys.client)


def build_check(
    *,
    nominate: bool = True,
    ufrag: str = CREDENTIALS.local_ufrag,
    pwd: str = CREDENTIALS.local_pwd,
    role: str = "ICE-CONTROLLING",
) -> bytes:
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        attributes={"USERNAME": f"{ufrag}:{CREDENTIALS.remote_ufrag}", "PRIORITY": 1, role: 1},
    )
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(pwd.encode())
    return bytes(message)


def build_probe_answer(
    probe: bytes, address: Address, *, pwd: str = CREDENTIALS.remote_pwd
) -> bytes:
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.RESPONSE,
        transaction_id=parse_stun(probe).transaction_id,
        attributes={"XOR-MAPPED-ADDRESS": address[:2]},
    )
    message.add_message_integrity(pwd.encode())
    return bytes(message)


def negotiate(direction: str = "sendrecv", *fingerprints: Fingerprint) -> Negotiated:
    return Negotiated(
        audio_mid="0",
        codec=Codec(PAYLOAD_TYPE, "opus", 48000, 2),
        telephone_event=Codec(110, "telephone-event", 48000),
        direction=direction,
        remote=IceCredentials(CREDENTIALS.remote_ufrag, CREDENTIALS.remote_pwd),
        remote_fingerprints=fingerprints or (PEER_IDENTITY.fingerprint(),),
    )


@dataclass
class Sent:
    """A datagram that the session sent."""

    address: Address
    data: bytes

    @property
    def stun_kind(self) -> int | None:
        return parse_stun(self.data).kind if self.data[0] < 4 else None

    @property
    def is_dtls(self) -> bool:
        return 20 <= self.data[0] < 64

    @property
    def is_rtp(self) -> bool:
        return self.data[0] >= 128 and not is_rtcp(self.data)

    @property
    def is_rtcp(self) -> bool:
        return self.data[0] >= 128 and is_rtcp(self.data)


@dataclass
class Line:
    """One session and everything that goes in and out of it."""

    negotiated: Negotiated = field(default_factory=negotiate)
    app: AppFactory = Echo
    now: float = 1000.0
    counters: Counters = field(default_factory=Counters)
    handshakes: Handshakes = field(default_factory=Handshakes)
    probes: dict[bytes, Flow] = field(default_factory=dict)
    flows: dict[Address, Flow] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(
            session_id=secrets.token_hex(16),
            credentials=CREDENTIALS,
            negotiated=self.negotiated,
            ssrc=0x1234,
            cname="cname",
            identity=IDENTITY,
            app=self.app,
            outside=self,
            now=self.now,
            wall_offset=1e9,
        )
        self.dtls = DtlsClient()
        self.srtp: Srtp | None = None

    # What a session needs of its process

    def transmit(self, flow: Flow, data: bytes) -> None:
        self.sent.append(Sent(flow.address, data))

    def add_flow(self, flow: Flow) -> None:
        self.flows.setdefault(flow.address, flow)

    def claim_flow(self, flow: Flow) -> None:
        self.flows[flow.address] = flow

    def drop_flow(self, flow: Flow) -> None:
        del self.flows[flow.address]

    def ice_restarted(self, session: Session, retired: str) -> None:
        assert session is self.session
        self.retired.append(retired)

    def session_ended(self, session: Session, reason: str) -> None:
        assert session is self.session
        self.ended.append(reason)

    # The client's side

    def take(self) -> list[Sent]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def deliver(self, data: bytes, address: Address = CLIENT) -> list[Sent]:
        """Bring one datagram to the session as the worker would; returns what it sends."""
        session = self.session
        if data[0] >= 128:
            session.receive_media(data, self.flows[address], self.now)
        elif data[0] >= 20:
            session.receive_dtls(data, self.flows[address], self.now)
        else:
            message = parse_stun(data)
            if message.kind == BINDING_REQUEST:
                assert message.receiver_ufrag is not None
                ufrag = message.receiver_ufrag.decode()
                session.receive_request(message, ufrag, 0, address, self.now)
            else:
                flow = self.probes[message.transaction_id]
                session.receive_response(message, flow, self.now)
        return self.take()

    def prove(self, address: Address = CLIENT, *, nominate: bool = True) -> None:
        """Check from an address and answer the probe that comes."""
        probe, success = self.deliver(build_check(nominate=nominate), address)
        assert (probe.stun_kind, success.stun_kind) == (BINDING_REQUEST, BINDING_SUCCESS)
        self.deliver(build_probe_answer(probe.data, address), address)

    def shake(self, datagrams: list[bytes], address: Address = CLIENT) -> None:
        """Carry DTLS to and fro until neither side has more to say."""
        while datagrams:
            answers = [sent for datagram in datagrams for sent in self.deliver(datagram, address)]
            datagrams = [d for answer in answers for d in self.dtls.receive(answer.data)]

    def connect(self) -> Srtp:
        """Go all the way; returns the client's SRTP."""
        self.prove()
        self.shake(self.dtls.start())
        self.srtp = self.dtls.derive_srtp()
        return self.srtp

    def send_rtp(
        self, sequence: int, *, ssrc: int = 7, timestamp: int | None = None, payload: bytes = b"abc"
    ) -> list[RtpPacket]:
        """Send one RTP packet; returns the RTP that comes back, decrypted."""
        return self.open_rtp(self.deliver_rtp(sequence, ssrc, timestamp, payload))

    def deliver_rtp(
        self, sequence: int, ssrc: int = 7, timestamp: int | None = None, payload: bytes = b"abc"
    ) -> list[Sent]:
        """Send one RTP packet; returns what comes back as it is."""
        assert self.srtp is not None
        stamp = sequence * 960 if timestamp is None else timestamp
        packet = RtpPacket(
            PAYLOAD_TYPE, False, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc, payload
        )
        return self.deliver(self.srtp.tx.protect(build_rtp(packet)))

    def open_rtp(self, sent: list[Sent]) -> list[RtpPacket]:
        assert self.srtp is not None
        return [parse_rtp(self.srtp.rx.unprotect(one.data)) for one in sent if one.is_rtp]

    def send_rtcp(self, packet: bytes) -> list[Sent]:
        assert self.srtp is not None
        return self.deliver(self.srtp.tx.protect_rtcp(packet))

    def pass_time(self, seconds: float) -> list[Sent]:
        """Let time pass, polling when the session asks for it; returns what it sends."""
        end = self.now + seconds
        due = self.session.poll(self.now)
        while not self.session.ended and due <= end:
            self.now = max(self.now, due)
            due = self.session.poll(self.now)
        self.now = end
        return self.take()


def build_offer(identity: PeerIdentity = PEER_IDENTITY) -> str:
    """Build the least offer that a transceiver takes."""
    name, digest = identity.fingerprint()
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        f"m=audio 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE}",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=sendrecv",
        "a=rtcp-mux",
        f"a=rtpmap:{PAYLOAD_TYPE} opus/48000/2",
        f"a=ice-ufrag:{CREDENTIALS.remote_ufrag}",
        f"a=ice-pwd:{CREDENTIALS.remote_pwd}",
        f"a=fingerprint:{name} {digest}",
        "a=setup:actpass",
    ]
    return "\r\n".join(lines) + "\r\n"
