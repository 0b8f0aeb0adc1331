"""The limit on DTLS handshakes in progress: sessions that share one process's places."""

import pytest

from turnout.transceiver.handshakes import PLACE_SECONDS, Handshakes
from unit.transceiver.peer import Line, PeerIdentity, negotiate


def begin(handshakes: Handshakes, line: Line | None = None) -> Line:
    """Send the ClientHello of a session, and let the answers be lost."""
    line = line or Line(handshakes=handshakes)
    line.prove()
    for datagram in line.dtls.start():
        line.deliver(datagram)
    return line


def test_client_hello_past_the_limit_is_dropped_and_the_next_one_finds_a_place() -> None:
    handshakes = Handshakes(2)
    first, second = begin(handshakes), begin(handshakes)
    late = Line(handshakes=handshakes)
    late.prove()
    hello = late.dtls.start()
    assert [late.deliver(datagram) for datagram in hello] == [[]]
    assert late.counters.drop__handshake_limit == 1
    assert late.session.dtls.state == "new"
    second.session.end("deleted", second.now)
    assert len(handshakes) == 1
    late.shake(hello)
    assert late.dtls.is_connected
    assert first.ended == []


def test_handshake_that_finishes_gives_its_place_back() -> None:
    handshakes = Handshakes(1)
    for _ in range(3):
        line = Line(handshakes=handshakes)
        line.connect()
        assert len(handshakes) == 0
        assert line.counters.drop__handshake_limit == 0


def test_handshake_that_fails_gives_its_place_back() -> None:
    handshakes = Handshakes(1)
    line = Line(negotiate("sendrecv", PeerIdentity().fingerprint()), handshakes=handshakes)
    line.prove()
    line.shake(line.dtls.start())
    assert line.ended == ["failed"]
    assert len(handshakes) == 0


def test_handshake_that_is_spoiled_gives_its_place_back() -> None:
    handshakes = Handshakes(1)
    line = begin(handshakes)
    assert len(handshakes) == 1
    # A key exchange that is none: OpenSSL gives the handshake up.
    body = b"\x10" + (4).to_bytes(3) + (1).to_bytes(2) + bytes(3) + (4).to_bytes(3) + b"\3abc"
    line.deliver(b"\x16\xfe\xfd" + (9).to_bytes(8) + len(body).to_bytes(2) + body)
    assert line.counters.dtls_restarted == 1
    assert len(handshakes) == 0


def test_place_that_was_held_too_long_goes_to_the_next_who_wants_one() -> None:
    handshakes = Handshakes(1)
    stuck = begin(handshakes)
    late = Line(handshakes=handshakes)
    late.prove()
    hello = late.dtls.start()
    late.now += PLACE_SECONDS - 0.1
    late.deliver(hello[0])
    assert (stuck.ended, late.counters.drop__handshake_limit) == ([], 1)
    late.now += 0.2
    late.shake(hello)
    assert stuck.ended == ["failed"]
    assert late.dtls.is_connected


def test_place_that_nobody_else_wants_is_kept_for_longer() -> None:
    line = begin(Handshakes(1))
    line.pass_time(PLACE_SECONDS + 5)
    assert line.ended == []
    for datagram in line.dtls.retransmit():
        line.deliver(datagram)
    assert line.session.dtls.state == "handshaking"


@pytest.mark.parametrize("most", [1, 3])
def test_limit_that_is_lowered_holds_for_the_next(most: int) -> None:
    handshakes = Handshakes(5)
    lines = [begin(handshakes) for _ in range(4)]
    handshakes.most = most
    assert begin(handshakes).counters.drop__handshake_limit == 1
    for line in lines:
        line.session.end("deleted", line.now)
    assert begin(handshakes).counters.drop__handshake_limit == 0
