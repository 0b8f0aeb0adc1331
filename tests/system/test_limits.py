"""Limits as a client meets them, through the kernel: captured checks, and doors held shut."""

import http.client
import json
import select
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from socket import create_connection, socket

import pytest

from system.lab import SHARED_PORT, Lab, open_running_lab
from system.namespaces import EDGE_ADDRESSES, run_in_namespace
from turnout.wire.sdp import SessionDescription
from turnout.wire.stun import BINDING_REQUEST, parse_stun
from unit.transceiver.peer import DtlsClient, build_check, build_offer, build_probe_answer

pytestmark = pytest.mark.privileged

VIP = EDGE_ADDRESSES[4]
SDP_HEADERS = {"Content-Type": "application/sdp"}
OFFERS_A_MINUTE = 3


@pytest.fixture(scope="module")
def limited_lab() -> Iterator[Lab]:
    with open_running_lab("--offers-a-minute", str(OFFERS_A_MINUTE), transceivers=1) as lab:
        yield lab


def post(lab: Lab, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    """POST an offer from the client's host."""

    def send() -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(VIP, 8080, timeout=10)
        connection.request("POST", "/whip", body, SDP_HEADERS)
        reply = connection.getresponse()
        answered = reply.status, reply.headers, reply.read()
        connection.close()
        return answered

    return run_in_namespace(lab.namespaces.client, send)


def metrics(lab: Lab) -> dict[str, float]:
    def scrape() -> str:
        with urllib.request.urlopen("http://127.0.0.1:9478/metrics", timeout=10) as reply:
            return str(reply.read().decode())

    lines = run_in_namespace(lab.namespaces.edge, scrape).splitlines()
    series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in series}


@dataclass
class Victim:
    """A client that connects, is recorded by somebody on its path, and vanishes."""

    socket: socket
    check: bytes

    def connect(self) -> None:
        """Go all the way to DTLS: from then on the session lives by signs of life alone."""
        dtls = DtlsClient()
        self.send(self.check)
        hello = dtls.start()
        deadline = time.monotonic() + 20
        while not dtls.is_connected:
            assert time.monotonic() < deadline, "no DTLS"
            data = self.socket.recv(2048)
            if data[0] < 4 and parse_stun(data).kind == BINDING_REQUEST:
                self.send(build_probe_answer(data, self.socket.getsockname()))
                for datagram in hello:
                    self.send(datagram)
            elif 20 <= data[0] < 64:
                for datagram in dtls.receive(data):
                    self.send(datagram)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, (VIP, SHARED_PORT))


def drain(one: socket) -> int:
    """Return how many bytes are in a socket, and take them."""
    count = 0
    while select.select([one], [], [], 0)[0]:
        count += len(one.recv(2048))
    return count


def test_captured_check_neither_amplifies_nor_keeps_a_session(lab: Lab) -> None:
    status, _, answer = post(lab, build_offer().encode())
    assert status == 201
    attributes = SessionDescription.parse(answer.decode()).media[0].attributes
    check = build_check(
        ufrag=attributes.value("ice-ufrag") or "", pwd=attributes.value("ice-pwd") or ""
    )
    with lab.client_socket() as own, lab.client_socket(which=1) as forged:
        own.settimeout(10)
        victim = Victim(own, check)
        victim.connect()
        (slot,) = (n for n in range(2) if lab.edge.transceiver(n)["sessions"])
        gone_at = time.monotonic()
        bytes_in = bytes_out = 0
        while lab.edge.transceiver(slot)["sessions"]:
            assert time.monotonic() < gone_at + 40, "a captured check keeps the session alive"
            victim.send(check)
            if time.monotonic() < gone_at + 10:
                forged.sendto(check, (VIP, SHARED_PORT))
                bytes_in += len(check)
            time.sleep(0.5)
            bytes_out += drain(forged)
            assert bytes_out <= 3 * bytes_in
    counters = lab.edge.transceiver(slot)["counters"]
    assert counters["sessions_ended__timeout"] == 1
    assert counters["amplification_limited"] > 0
    assert bytes_out > bytes_in / 2


def test_slow_client_is_cut_and_others_are_served(lab: Lab) -> None:
    def crawl() -> float:
        begun = time.monotonic()
        with create_connection((VIP, 8080), timeout=30) as slow:
            slow.sendall(b"POST /whip HTTP/1.1\r\nHost: edge\r\nA: ")
            slow.settimeout(0.5)
            while time.monotonic() < begun + 30:
                try:
                    slow.sendall(b"x")
                    if slow.recv(100) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        return time.monotonic() - begun

    assert run_in_namespace(lab.namespaces.client, crawl) < 29
    assert (
        metrics(lab)['turnout_http_connections_closed_total{door="http",reason="no_request"}'] >= 1
    )
    assert post(lab, build_offer().encode())[0] == 201


def test_more_connections_than_a_door_has_places_keep_nobody_out(lab: Lab) -> None:
    def crowd() -> list[socket]:
        return [create_connection((VIP, 8080), timeout=10) for _ in range(1100)]

    crowded = run_in_namespace(lab.namespaces.client, crowd)
    try:
        assert post(lab, build_offer().encode())[0] == 201
        shown = metrics(lab)
        assert shown['turnout_http_connections{door="http"}'] <= 1024
        cut = 'turnout_http_connections_closed_total{door="http",reason="for_another"}'
        assert shown[cut] >= 1100 - 1024
    finally:
        for one in crowded:
            one.close()


def test_offer_past_the_size_is_413_and_counted(lab: Lab) -> None:
    status, headers, body = post(lab, build_offer().encode() + b"a=x\r\n" * 20_000)
    assert (status, headers["Content-Type"]) == (413, "application/problem+json")
    assert "65536 bytes" in json.loads(body)["detail"]
    assert metrics(lab)['turnout_http_answers_total{door="http",status="413"}'] >= 1


def test_offers_past_the_budget_are_429_and_counted(limited_lab: Lab) -> None:
    offer = build_offer().encode()
    answered = [post(limited_lab, offer) for _ in range(OFFERS_A_MINUTE + 2)]
    assert [status for status, _, _ in answered] == [201] * OFFERS_A_MINUTE + [429] * 2
    assert 1 <= int(answered[-1][1]["Retry-After"]) <= 60
    shown = metrics(limited_lab)
    assert shown['turnout_http_answers_total{door="http",status="429"}'] == 2
