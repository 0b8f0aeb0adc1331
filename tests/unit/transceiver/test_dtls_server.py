import struct
import time

import pytest

from turnout.errors import WireError
from turnout.transceiver.counters import Counters
from turnout.transceiver.dtls import MTU, DtlsServer, matches_fingerprint
from turnout.wire.dtls import HANDSHAKE, parse_records
from turnout.wire.sdp import Fingerprint
from unit.transceiver.peer import IDENTITY, PEER_IDENTITY, DtlsClient, PeerIdentity


class Pair:
    """A server and a client, and the ways a network treats what they say."""

    def __init__(self, client: DtlsClient | None = None) -> None:
        self.counters = Counters()
        self.server = DtlsServer(IDENTITY, self.counters)
        self.client = client or DtlsClient()

    def serve(self, *datagrams: bytes) -> list[bytes]:
        for datagram in datagrams:
            self.server.receive(datagram)
        return self.server.take_datagrams()

    def finish(self, datagrams: list[bytes]) -> None:
        """Carry to and fro from the client's `datagrams` on until neither has more to say."""
        while datagrams:
            answers = self.serve(*datagrams)
            datagrams = [one for answer in answers for one in self.client.receive(answer)]

    def retransmit(self) -> list[bytes]:
        """Wait for the client's own retransmission (1 s in OpenSSL)."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            datagrams = self.client.retransmit()
            if datagrams:
                return datagrams
            time.sleep(0.05)
        raise AssertionError("the client retransmits nothing")


def record(content_type: int, body: bytes) -> bytes:
    # A sequence number that no record of the client has had, or it would pass for a repetition.
    return struct.pack("!BHHIHH", content_type, 0xFEFD, 0, 0, 999, len(body)) + body


ALERT = record(21, b"\x02\x28")
EARLY_CCS = record(20, b"\x01")
MALFORMED = record(22, b"\x0b\x00\x00\x05\x00\x01\x00\x00\x04\x00\x00\x05hello")
# Whole and well framed, but its session id claims more bytes than there are.
CORRUPT_HELLO = record(
    22, b"\x01\x00\x00\x24\x00\x00\x00\x00\x00\x00\x00\x24\xfe\xfd" + bytes(32) + b"\xff\x00"
)


def assert_connected(pair: Pair) -> None:
    assert pair.client.is_connected
    assert pair.server.state == "connected"
    derived = pair.server.derive_keys((PEER_IDENTITY.fingerprint(),))
    assert derived is not None
    assert derived[0] == pair.client.derive_srtp().profile


def test_handshake_completes_with_gcm_preferred() -> None:
    pair = Pair(DtlsClient(profiles=b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM"))
    pair.finish(pair.client.start())
    assert_connected(pair)
    assert pair.client.derive_srtp().profile.name == "SRTP_AEAD_AES_128_GCM"


def test_handshake_takes_sha1_80_where_nothing_else_is_offered() -> None:
    pair = Pair(DtlsClient(profiles=b"SRTP_AES128_CM_SHA1_80"))
    pair.finish(pair.client.start())
    assert_connected(pair)


def test_datagrams_are_whole_records_within_the_mtu() -> None:
    pair = Pair()
    datagrams = pair.serve(*pair.client.start())
    assert all(len(datagram) <= MTU for datagram in datagrams)
    assert sum(len(parse_records(datagram)) for datagram in datagrams) > len(datagrams)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_client_hello_that_spans_datagrams_is_put_together(is_reversed: bool) -> None:
    pair = Pair(DtlsClient(mtu=300, hello_bytes=700))
    hello = pair.client.start()
    assert len(hello) > 2
    if is_reversed:
        hello.reverse()
    pair.finish(hello)
    assert_connected(pair)


@pytest.mark.parametrize(
    ("stray", "counter"),
    [
        pytest.param(ALERT, "screened__plaintext_alert", id="alert"),
        pytest.param(EARLY_CCS, "screened__early_ccs", id="early ChangeCipherSpec"),
        pytest.param(MALFORMED, "screened__bad_handshake", id="malformed fragment"),
        pytest.param(record(22, b""), "screened__bad_handshake", id="empty handshake record"),
        pytest.param(
            record(22, b"\x02" + bytes(11)), "screened__bad_handshake", id="a server's message"
        ),
    ],
)
@pytest.mark.parametrize("moment", ["first", "after the hello"])
def test_stray_record_is_screened_and_the_handshake_goes_on(
    stray: bytes, counter: str, moment: str
) -> None:
    pair = Pair()
    hello = pair.client.start()
    if moment == "first":
        assert pair.serve(stray) == []
        pair.finish(hello)
    else:
        flight = pair.serve(*hello)
        assert pair.serve(stray) == []
        pair.finish([one for datagram in flight for one in pair.client.receive(datagram)])
    assert_connected(pair)
    assert getattr(pair.counters, counter) == 1
    assert pair.counters.drop__dtls_screened == 1


def test_stray_record_beside_a_good_one_is_cut_out() -> None:
    pair = Pair()
    (hello,) = pair.client.start()
    pair.finish([ALERT + hello])
    assert_connected(pair)
    assert pair.counters.drop__dtls_screened == 0


def test_handshake_spoiled_before_the_hello_begins_anew_with_it() -> None:
    pair = Pair()
    assert pair.serve(CORRUPT_HELLO) == []
    assert pair.counters.dtls_restarted == 1
    pair.finish(pair.client.start())
    assert_connected(pair)


def test_handshake_spoiled_with_the_flight_lost_begins_anew_with_the_retransmission() -> None:
    pair = Pair()
    pair.serve(*pair.client.start())  # lost on its way
    junk = b"\x0b\x00\x00\x05\x00\x01\x00\x00\x00\x00\x00\x05hello"
    assert pair.serve(record(22, junk)) == []
    assert pair.counters.dtls_restarted == 1
    assert pair.server.state == "new"
    pair.finish(pair.retransmit())
    assert_connected(pair)


def test_lost_flight_is_retransmitted_by_the_server() -> None:
    pair = Pair()
    lost = pair.serve(*pair.client.start())
    timeout = pair.server.seconds_to_timeout()
    assert timeout is not None
    assert 0 < timeout <= 1
    deadline = time.monotonic() + 5
    again: list[bytes] = []
    while not again and time.monotonic() < deadline:
        time.sleep(0.05)
        pair.server.handle_timeout()
        again = pair.server.take_datagrams()
    assert len(again) == len(lost)
    pair.finish([one for datagram in again for one in pair.client.receive(datagram)])
    assert_connected(pair)
    assert pair.server.seconds_to_timeout() is None


def test_lost_last_flight_is_retransmitted_when_the_client_asks() -> None:
    pair = Pair()
    flight = pair.serve(*pair.client.start())
    pair.serve(*[one for datagram in flight for one in pair.client.receive(datagram)])  # lost
    assert pair.server.state == "connected"
    assert not pair.client.is_connected
    pair.finish(pair.retransmit())
    assert_connected(pair)


def test_datagram_without_a_handshake_is_counted() -> None:
    pair = Pair()
    assert pair.serve(record(22, b"\x10" + bytes(11))) == []
    assert pair.counters.drop__dtls_no_handshake == 1


@pytest.mark.parametrize(
    "datagram", [b"\x16", b"\x16\xfe\xfd" + bytes(20), bytes((22,)) * 100, b"\x3f" + bytes(40)]
)
def test_datagram_that_is_no_records_raises(datagram: bytes) -> None:
    with pytest.raises(WireError):
        Pair().serve(datagram)


def test_noise_after_the_handshake_changes_nothing() -> None:
    pair = Pair()
    (hello,) = pair.client.start()
    pair.finish([hello])
    forged = bytearray(record(21, bytes(40)))
    forged[3:5] = b"\x00\x01"  # epoch 1, but not sealed with its key
    assert pair.serve(ALERT, MALFORMED, CORRUPT_HELLO, hello, bytes(forged)) == []
    assert pair.server.state == "connected"


def test_close_notify_of_the_client_closes() -> None:
    pair = Pair()
    pair.finish(pair.client.start())
    pair.serve(*pair.client.close())
    assert pair.server.state == "closed"


def test_close_sends_close_notify() -> None:
    pair = Pair()
    pair.finish(pair.client.start())
    pair.server.close()
    for datagram in pair.server.take_datagrams():
        pair.client.receive(datagram)
    assert pair.client.is_closed


def test_close_before_the_handshake_says_nothing() -> None:
    pair = Pair()
    pair.serve(*pair.client.start())
    pair.server.close()
    assert pair.server.take_datagrams() == []
    assert pair.serve(*pair.client.start()) == []


def test_certificate_of_somebody_else_fails() -> None:
    pair = Pair()
    pair.finish(pair.client.start())
    assert pair.server.derive_keys((PeerIdentity().fingerprint(),)) is None
    assert pair.server.state == "failed"


def test_client_without_srtp_fails() -> None:
    pair = Pair(DtlsClient(profiles=b""))
    pair.finish(pair.client.start())
    assert pair.server.derive_keys((PEER_IDENTITY.fingerprint(),)) is None
    assert pair.server.state == "failed"


def test_fingerprint_strongest_signaled_hash_decides() -> None:
    certificate = PEER_IDENTITY.certificate
    wrong = Fingerprint("sha-512", ":".join(["00"] * 64))
    right = PEER_IDENTITY.fingerprint("sha-512")
    assert not matches_fingerprint(certificate, (PEER_IDENTITY.fingerprint(), wrong))
    assert matches_fingerprint(certificate, (PEER_IDENTITY.fingerprint(), wrong, right))
    assert not matches_fingerprint(certificate, ())


def test_fingerprint_in_lower_case_matches() -> None:
    name, digest = PEER_IDENTITY.fingerprint()
    assert matches_fingerprint(PEER_IDENTITY.certificate, ((name, digest.lower()),))


def test_handshake_records_of_the_client_pass_the_screen() -> None:
    pair = Pair()
    flight = pair.serve(*pair.client.start())
    answers = [one for datagram in flight for one in pair.client.receive(datagram)]
    kinds = {record.content_type for answer in answers for record in parse_records(answer)}
    assert HANDSHAKE in kinds
    pair.finish(answers)
    assert_connected(pair)
    assert pair.counters.screened__bad_handshake == 0
