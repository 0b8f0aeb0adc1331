"""Bad input at every door: a clear error or a counted drop, and every process lives on."""

import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.edge_process import ApiCallFailed, ask
from system.lab import WHIP_URL, Lab, counted, wait_until
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES, open_socket, run_in_namespace
from system.raw import RawSession, raw_client
from turnout.calling import Call

pytestmark = pytest.mark.privileged

OFFER = (Path(__file__).parents[1] / "vectors/offers/aiortc-audio.sdp").read_bytes()
SDP = "application/sdp"
COOKIE = 0x2112A442


@pytest.fixture(autouse=True)
def nobody_dies(lab: Lab) -> Iterator[None]:
    """Hold every test here to the same processes before and after."""
    before = lab.edge.pids()
    yield
    assert lab.edge.pids() == before
    for pid in before.values():
        os.kill(pid, 0)


def request(
    lab: Lab, method: str, path: str, body: bytes = b"", content_type: str = SDP
) -> tuple[int, str, bytes, str]:
    """Send one HTTP request from the client; returns status, content type, body, Location."""

    def send() -> tuple[int, str, bytes, str]:
        connection = http.client.HTTPConnection(EDGE_ADDRESSES[4], 8080, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            reply = connection.getresponse()
            kind = reply.getheader("Content-Type") or ""
            return reply.status, kind, reply.read(), reply.getheader("Location") or ""
        finally:
            connection.close()

    return run_in_namespace(lab.namespaces.client, send)


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status"),
    [
        pytest.param("POST", "/whip", b"", SDP, 400, id="empty"),
        pytest.param("POST", "/whip", b"hello", SDP, 400, id="no SDP"),
        pytest.param("POST", "/whip", b"\xff\xfe\x00", SDP, 400, id="no UTF-8"),
        pytest.param("POST", "/whip", OFFER, "text/plain", 415, id="another type"),
        pytest.param("POST", "/whip", OFFER + b"a=x\r\n" * 20_000, SDP, 413, id="100 kB"),
        pytest.param(
            "POST", "/whip", OFFER.replace(b"a=ice-ufrag", b"a=x"), SDP, 422, id="no ufrag"
        ),
        pytest.param(
            "POST", "/whip", OFFER.replace(b"a=fingerprint", b"a=x"), SDP, 422, id="no fingerprint"
        ),
        pytest.param(
            "POST", "/whip", OFFER.replace(b"actpass", b"passive"), SDP, 422, id="passive"
        ),
        pytest.param(
            "POST", "/whip", OFFER.replace(b"a=rtcp-mux", b"a=x"), SDP, 422, id="no rtcp-mux"
        ),
        pytest.param("PUT", "/whip", OFFER, SDP, 405, id="PUT"),
        pytest.param("POST", "/elsewhere", OFFER, SDP, 404, id="another path"),
        pytest.param("DELETE", "/whip/0123", b"", SDP, 404, id="no such session"),
        pytest.param("DELETE", f"/whip/{'0' * 32}", b"", SDP, 404, id="no such id"),
    ],
)
def test_http_door_refuses_with_a_reason(
    *, lab: Lab, method: str, path: str, body: bytes, content_type: str, status: int
) -> None:
    got, kind, answer, _ = request(lab, method, path, body, content_type)
    assert got == status, answer
    assert kind.startswith("application/problem+json")
    problem = json.loads(answer)
    assert problem["status"] == status
    assert len(problem["detail"]) > 10
    assert lab.edge.api("GET", "/sessions") == []


def test_http_door_offer_cut_anywhere_is_answered_and_never_with_5xx(lab: Lab) -> None:
    lines = OFFER.splitlines(keepends=True)
    for count in range(len(lines)):
        for offer in (b"".join(lines[:count]), b"".join(lines[:count] + lines[count + 1 :])):
            status, _, answer, location = request(lab, "POST", "/whip", offer)
            assert status == 201 or 400 <= status < 500, (offer, answer)
            if status == 201:
                assert request(lab, "DELETE", location)[0] == 200
    assert lab.edge.api("GET", "/sessions") == []


@pytest.mark.parametrize(
    "text",
    [b"\x16\x03\x01\x02\x00\x01", b"POST /whip HTTP/9.9\r\n\r\n", b"GET " + b"x" * 70_000],
    ids=["TLS", "version", "endless line"],
)
def test_http_door_takes_garbage_and_serves_the_next(lab: Lab, text: bytes) -> None:
    namespace, address = lab.namespaces.client, CLIENT_ADDRESSES[4][0]
    with open_socket(namespace, address, kind=socket.SOCK_STREAM) as stream:
        stream.connect((EDGE_ADDRESSES[4], 8080))
        stream.sendall(text)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(65536):
            pass
    assert request(lab, "POST", "/whip", b"hello")[0] == 400
    # A stranger must not be able to fill the disk with tracebacks.
    assert "Traceback" not in lab.edge.tail()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/sessions", "{", 400, "JSON"),
        ("POST", "/sessions", "[]", 400, "object"),
        ("POST", "/sessions", {"ufrag": "abc", "pwd": "p" * 22, "owner": 0}, 400, "ufrag"),
        ("POST", "/sessions", {"ufrag": "ab:c", "pwd": "p" * 22, "owner": 0}, 400, "ufrag"),
        ("POST", "/sessions", {"ufrag": "abcd", "pwd": "short", "owner": 0}, 400, "pwd"),
        ("POST", "/sessions", {"ufrag": "abcd", "pwd": "p" * 22, "owner": 999}, 400, "999"),
        ("POST", "/sessions", {"ufrag": "abcd", "pwd": "p" * 22, "owner": "0"}, 400, "owner"),
        ("POST", "/sessions", {"ufrag": "abcd", "owner": 0}, 400, "pwd"),
        ("POST", "/owners", {"lane": 80}, 400, "80"),
        ("POST", "/owners", {"lane": 20000}, 400, "20000"),
        ("DELETE", "/owners/0", None, 409, "transceiver"),
        ("DELETE", "/owners/4000", None, 404, "4000"),
        ("DELETE", "/owners/x", None, 400, "slot"),
        ("DELETE", "/sessions/x", None, 404, "x"),
        ("PATCH", "/status", None, 405, "PATCH"),
        ("GET", "/nothing", None, 404, "/status"),
    ],
)
def test_local_api_refuses_with_a_reason(
    *, lab: Lab, method: str, path: str, body: Any, status: int, said: str
) -> None:
    text = body if isinstance(body, str) or body is None else json.dumps(body)
    with pytest.raises(ApiCallFailed) as refused:
        ask(lab.edge.runtime / "api.sock", method, path, text)
    assert refused.value.status == status
    assert said in refused.value.detail


def test_local_api_refuses_a_ufrag_twice(lab: Lab) -> None:
    body = {"ufrag": "twice", "pwd": "p" * 22, "owner": 0}
    made = lab.edge.api("POST", "/sessions", body)
    with pytest.raises(ApiCallFailed, match="twice") as refused:
        lab.edge.api("POST", "/sessions", body)
    assert refused.value.status == 409
    lab.edge.api("DELETE", f"/sessions/{made['id']}")


def stun(body: bytes, *, kind: int = 1, cookie: int = COOKIE, length: int | None = None) -> bytes:
    return struct.pack("!HHI12s", kind, len(body) if length is None else length, cookie, b"") + body


def username(value: bytes) -> bytes:
    return struct.pack("!HH", 6, len(value)) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        pytest.param(b"", "drop__empty", id="empty"),
        pytest.param(b"\x40", "drop__unknown_class", id="TURN channel"),
        pytest.param(b"\xff" * 1400, "drop__unknown_class", id="0xff"),
        pytest.param(b"GET / HTTP/1.1\r\n", "drop__unknown_class", id="HTTP"),
        pytest.param(b"\x00", "drop__bad_stun", id="one zero"),
        pytest.param(stun(username(b"some:clnt"), cookie=1), "drop__bad_stun", id="cookie"),
        pytest.param(stun(b"", length=400), "drop__bad_stun", id="length past the end"),
        pytest.param(stun(bytes(6)), "drop__bad_stun", id="length no multiple of 4"),
        pytest.param(stun(b"\x00\x06\x00\xff"), "drop__bad_stun", id="attribute past the end"),
        pytest.param(stun(username(b"no-colon")), "drop__bad_username", id="no colon"),
        pytest.param(stun(username(b"ab:clnt")), "drop__bad_username", id="ufrag too short"),
        pytest.param(stun(username(b"none:clnt")), "drop__no_session", id="nobody's ufrag"),
        pytest.param(stun(b""), "drop__no_flow", id="no USERNAME"),
        pytest.param(stun(b"", kind=0x0101), "drop__no_flow", id="response to nothing"),
        pytest.param(bytes([22, 254, 253]) + bytes(100), "drop__no_flow", id="DTLS, no flow"),
        pytest.param(bytes([128, 111]) + bytes(50), "drop__no_flow", id="RTP, no flow"),
    ],
)
@pytest.mark.parametrize("family", [4, 6])
def test_shared_port_drops_and_counts(lab: Lab, family: int, datagram: bytes, counter: str) -> None:
    before = lab.edge.counters()
    with raw_client(lab, family) as client:
        client.send(datagram)
        wait_until(lambda: lab.edge.counters()["received"] > before["received"], "it is received")
    status = lab.edge.status()
    assert counted(before, status["counters"]) == {"received": 1, counter: 1}
    assert status["verdicts_add_up"] is True
    assert status["shared_port_datagrams"] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shared-port", "99999"], "99999"),
        (["--shared-port", "20005"], "20005"),
        (["--lanes", "5"], "'5'"),
        (["--lanes", "30000-20000"], "30000-20000"),
        (["--vip", "banana"], "banana"),
        (["--xdp-mode", "turbo"], "turbo"),
        (["--http", "8080"], "8080"),
        (["--transceivers", "2000"], "2000"),
        (["--transceivers", "many"], "many"),
        (["--instance", "A B"], "A B"),
        (["--bpffs", "here"], "here"),
    ],
)
def test_flag_with_a_bad_value_is_named_in_one_line_and_exits_2(
    lab: Lab, flags: list[str], said: str
) -> None:
    done = lab.edge.run_command("run", *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert said in line
    assert flags[0].removeprefix("--") in line


def test_interface_that_is_not_there_is_named(lab: Lab) -> None:
    arguments = ("--open", "--instance", "labnobody", "--interface", "nope0")
    done = lab.edge.run_command("run", *arguments)
    assert done.returncode in {1, 2}
    assert "nope0" in done.stderr
    assert "Traceback" not in done.stderr


def test_junk_inside_a_living_call_is_dropped_counted_and_the_call_goes_on(lab: Lab) -> None:
    slots = [owner["slot"] for owner in lab.edge.status()["owners"]]

    def dropped() -> dict[str, int]:
        total: dict[str, int] = {}
        for slot in slots:
            for name, count in lab.edge.transceiver(slot)["counters"].items():
                total[name] = total.get(name, 0) + count
        return total

    async def call_and_throw() -> tuple[int, dict[str, int]]:
        async with Call(WHIP_URL, tone=650, family=4) as call:
            await call.connect()
            await call.talk(1)
            ice = call.peer.ice._connection
            pair = next(iter(ice._nominated.values()))
            forged = RawSession(1, "", ice.remote_username, "not-the-password-at-all")
            for datagram in (
                forged.build_check(1),
                stun(b"", kind=0x0101),
                bytes([22, 254, 253]) + bytes(60),
                bytes([21, 254, 253]) + bytes(6) + b"\x00\x02\x02\x28",  # plaintext fatal alert
                bytes([20]),
                bytes([128, 111]) + bytes(60),
                bytes([128, 111, 0]),
                bytes([128, 200]) + bytes(60),
                bytes([191]) * 1400,
            ):
                pair.protocol.transport.sendto(datagram, pair.remote_addr)
            heard = call.detector.tone_windows
            await call.talk(2)
            # Before it hangs up: its last DTLS may come when the session is gone already.
            return call.detector.tone_windows - heard, dropped()

    before = dropped()
    windows, after = lab.in_client(call_and_throw)
    assert windows >= 10
    moved = counted(before, after)
    assert moved.get("internal_errors", 0) == 0
    assert moved["drop__bad_integrity"] == 1
    assert moved["drop__stun_unsolicited"] == 1
    assert sum(count for name, count in moved.items() if name.startswith("drop__")) == 9
    assert "sessions_ended__dtls_closed" not in moved
    assert "sessions_ended__failed" not in moved


def test_after_all_that_a_call_works(lab: Lab) -> None:
    assert lab.place_call(duration=1.5).error is None
