"""The WHIP door of a running edge: every status by a request that provokes it; TLS and a token."""

import http.client
import os
import signal
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from system.lab import SHARED_PORT, WHIP_URL, Lab, open_lab, wait_until
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES, run_in_namespace
from system.whip_caller import whip_call
from turnout.signaling.policy import TlsFiles
from turnout.wire.problem import parse_problem
from turnout.wire.sdp import IceCredentials
from turnout.wire.sdpfrag import IceFragment
from unit.certificates import write_certificate

pytestmark = pytest.mark.privileged

OFFER = (Path(__file__).parents[1] / "vectors/offers/aiortc-audio.sdp").read_bytes()
SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
TOKEN = "correct-horse-battery-staple"
OFFERS_A_MINUTE = 60
TRICKLE = b"m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
RESTART = b"a=ice-ufrag:again\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
NOBODY = "/whip/" + "ab" * 16
CONFIG = f"""\
http_token = "{TOKEN}"
offers_a_minute = {OFFERS_A_MINUTE}

[[ice_server]]
urls = ["stun:stun.example.net"]

[[ice_server]]
urls = ["turn:turn.example.net?transport=udp"]
username = "user"
credential = "myPassword"
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the door said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def detail(self) -> str:
        told = parse_problem(self.body)
        assert told is not None, self.body
        return told[1]


class Door:
    """The clients' side of the edge's door, over TLS."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.url = WHIP_URL.replace("http:", "https:")
        self.files = TlsFiles(lab.directory / "cert.pem", lab.directory / "key.pem")
        write_certificate(self.files, 1, address=EDGE_ADDRESSES[4])

    def start(self) -> None:
        config = self.lab.directory / "turnout.toml"
        config.write_text(CONFIG)
        config.chmod(0o600)
        files = ("--tls-cert", str(self.files.cert), "--tls-key", str(self.files.key))
        self.lab.edge.start("--config", str(config), *files)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        source: int = 0,
    ) -> Reply:
        """Send one request with the token; an empty header leaves a default one out."""
        sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": SDP, **(headers or {})}
        chosen = {name: value for name, value in sent.items() if value}

        def send() -> Reply:
            context = ssl.create_default_context(cafile=str(self.files.cert))
            connection = http.client.HTTPSConnection(
                EDGE_ADDRESSES[4],
                8080,
                timeout=20,
                context=context,
                source_address=(CLIENT_ADDRESSES[4][source], 0),
            )
            try:
                connection.request(method, path, body, chosen)
                reply = connection.getresponse()
                return Reply(reply.status, reply.headers, reply.read())
            finally:
                connection.close()

        return run_in_namespace(self.lab.namespaces.client, send)

    def post(self) -> tuple[str, str]:
        """Start a session nobody connects to; returns its path and ETag."""
        reply = self.ask("POST", "/whip", OFFER)
        assert reply.status == 201, reply.body
        return reply.headers["Location"], reply.headers["ETag"]


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """Return the door of an edge with TLS, a token, ICE servers and a budget of offers."""
    with open_lab() as lab:
        opened = Door(lab)
        opened.start()
        yield opened
        assert (lab.edge.stop(), lab.edge.leftovers()) == (0, []), lab.edge.tail()


@pytest.fixture
def session(door: Door) -> Iterator[tuple[str, str]]:
    """Return path and ETag of a session; it is deleted if the test has left it."""
    path, etag = door.post()
    yield path, etag
    assert door.ask("DELETE", path).status in {200, 404, 410}


def test_post_201_has_everything_a_client_needs(door: Door) -> None:
    reply = door.ask("POST", "/whip", OFFER)
    headers = reply.headers
    assert reply.status == 201
    assert headers["Content-Type"] == SDP
    assert headers["ETag"].startswith('"')
    assert headers["Accept-Patch"] == FRAGMENT
    path = headers["Location"]
    assert len(path.removeprefix("/whip/")) == 32
    assert headers.get_all("Link") == [
        '<stun:stun.example.net>; rel="ice-server"',
        (
            '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; '
            'credential="myPassword"; credential-type="password"'
        ),
    ]
    assert f"{EDGE_ADDRESSES[4]} {SHARED_PORT} typ host".encode() in reply.body
    assert door.ask("DELETE", path).status == 200
    assert door.ask("DELETE", path).status == 404


def test_sessions_have_names_that_nobody_guesses(door: Door) -> None:
    paths = [door.post()[0] for _ in range(3)]
    assert len(set(paths)) == 3
    for path in paths:
        assert door.ask("DELETE", path).status == 200


# What is asked, and how: method, path ("*" is a session that stands), body, headers, then the
# status and a word of the reason.
ROWS: dict[str, tuple[str, str, bytes, dict[str, str], int, str]] = {
    "400 body is no SDP": ("POST", "/whip", b"hello", {}, 400, "line 1"),
    "400 body is no UTF-8": ("POST", "/whip", b"\xff", {}, 400, "UTF-8"),
    "400 fragment is none": ("PATCH", "*", b"v=0\r\n", {"If-Match": "*"}, 400, "v="),
    "400 restart without credentials": ("PATCH", "*", TRICKLE, {"If-Match": "*"}, 400, "ufrag"),
    "401 no token": ("POST", "/whip", OFFER, {"Authorization": ""}, 401, "none was sent"),
    "401 wrong token": ("POST", "/whip", OFFER, {"Authorization": "Bearer x"}, 401, "not this"),
    "401 wrong scheme": ("DELETE", "*", b"", {"Authorization": f"Basic {TOKEN}"}, 401, "Bearer"),
    "404 no such session": ("DELETE", NOBODY, b"", {}, 404, "there is none"),
    "404 no such session to patch": ("PATCH", NOBODY, TRICKLE, {"If-Match": "*"}, 404, "none"),
    "404 no such path": ("GET", "/nothing", b"", {}, 404, "POST /whip"),
    "405 PUT": ("PUT", "/whip", OFFER, {}, 405, "POST /whip"),
    "405 PUT on a session": ("PUT", "*", OFFER, {}, 405, "PATCH /whip"),
    "405 POST on a session": ("POST", "*", OFFER, {}, 405, "DELETE /whip"),
    "405 PATCH on the endpoint": ("PATCH", "/whip", TRICKLE, {}, 405, "POST /whip"),
    "406 no codec of ours": (
        *("POST", "/whip", OFFER.replace(b"m=audio", b"m=video"), {}),
        *(406, "m=audio"),
    ),
    "412 another ICE session": ("PATCH", "*", TRICKLE, {"If-Match": '"x"'}, 412, "ETag"),
    "413 too large": ("POST", "/whip", OFFER + b"a=x\r\n" * 20000, {}, 413, "65536"),
    "415 offer as text": ("POST", "/whip", OFFER, {"Content-Type": "text/plain"}, 415, SDP),
    "415 fragment as SDP": (
        *("PATCH", "*", TRICKLE, {"If-Match": "*", "Content-Type": SDP}),
        *(415, FRAGMENT),
    ),
    "422 no DTLS server needed": (
        *("POST", "/whip", OFFER.replace(b"a=setup:actpass", b"a=setup:passive"), {}),
        *(422, "a=setup:passive"),
    ),
    "428 which ICE session": ("PATCH", "*", TRICKLE, {}, 428, "If-Match"),
}


@pytest.mark.parametrize("name", ROWS)
def test_refusal_has_its_status_and_a_reason(
    door: Door, session: tuple[str, str], name: str
) -> None:
    method, path, body, headers, status, said = ROWS[name]
    default = {"Content-Type": FRAGMENT} if method == "PATCH" else {}
    reply = door.ask(method, session[0] if path == "*" else path, body, {**default, **headers})
    assert reply.status == status == int(name.split(maxsplit=1)[0])
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert said in reply.detail
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert ("Allow" in reply.headers) == (status == 405)
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)
    assert door.ask("GET", session[0]).status == 204  # the session has not noticed


def test_410_after_the_transceiver_ended_the_session(door: Door) -> None:
    path, _ = door.post()
    edge = door.lab.edge
    slot = next(s["owner"] for s in edge.api("GET", "/sessions") if path.endswith(s["id"]))
    pid = edge.pids()[f"transceiver-{slot}"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: edge.api("GET", "/sessions") == [], "the session is over")
    for method in ("GET", "PATCH", "DELETE"):
        reply = door.ask(method, path, RESTART, {"If-Match": "*", "Content-Type": FRAGMENT})
        assert reply.status == 410
        assert "POST a new offer" in reply.detail
    wait_until(lambda: _active(edge.status()) == 2, "the transceiver is back", 30)


def _active(status: dict[str, Any]) -> int:
    return sum(owner["state"] == "active" for owner in status["owners"])


def test_429_past_the_budget_of_one_address_alone(door: Door) -> None:
    replies = [door.ask("POST", "/whip", b"hello", source=1) for _ in range(OFFERS_A_MINUTE + 40)]
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {400, 429}
    assert statuses[:OFFERS_A_MINUTE] == [400] * OFFERS_A_MINUTE
    refused = next(reply for reply in replies if reply.status == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert CLIENT_ADDRESSES[4][1] in refused.detail
    assert door.ask("POST", "/whip", b"hello").status == 400


def test_503_without_a_transceiver_says_when_to_come_again(door: Door) -> None:
    edge = door.lab.edge
    pids = [pid for name, pid in edge.pids().items() if name.startswith("transceiver")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _active(edge.status()) == 0, "both transceivers are down")
        reply = door.ask("POST", "/whip", OFFER)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert reply.status == 503
    assert int(reply.headers["Retry-After"]) >= 1
    assert "try again" in reply.detail
    wait_until(lambda: _active(edge.status()) == 2, "the transceivers are back", 30)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_are_2xx_and_empty(door: Door, session: tuple[str, str], method: str) -> None:
    for path in ("/whip", session[0]):
        reply = door.ask(method, path)
        assert (reply.status, reply.body) == (204, b"")


def test_options_need_no_token_and_say_what_is_taken(door: Door, session: tuple[str, str]) -> None:
    asked = {"Authorization": "", "Access-Control-Request-Headers": "authorization,if-match"}
    endpoint = door.ask("OPTIONS", "/whip", headers=asked)
    resource = door.ask("OPTIONS", session[0], headers=asked)
    assert (endpoint.status, endpoint.headers["Accept-Post"]) == (200, SDP)
    assert (resource.status, resource.headers["Accept-Patch"]) == (200, FRAGMENT)
    for reply in (endpoint, resource):
        assert reply.headers["Access-Control-Allow-Headers"] == "authorization,if-match"
        assert "Link" not in reply.headers


def test_trickle_is_204_and_restart_200_with_a_new_etag(
    door: Door, session: tuple[str, str]
) -> None:
    path, etag = session

    def patch(body: bytes, if_match: str) -> Reply:
        return door.ask("PATCH", path, body, {"Content-Type": FRAGMENT, "If-Match": if_match})

    reply = patch(TRICKLE, etag)
    assert (reply.status, reply.body) == (204, b"")
    assert "ETag" not in reply.headers
    reply = patch(RESTART, "*")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == FRAGMENT
    assert reply.headers["ETag"] != etag
    fragment = IceFragment.parse(reply.body.decode())
    assert fragment.credentials is not None
    vips = {(address, SHARED_PORT) for address in EDGE_ADDRESSES.values()}
    assert {(one.address, one.port) for one in fragment.candidates} == vips
    assert patch(TRICKLE, etag).status == 412
    assert patch(TRICKLE, reply.headers["ETag"]).status == 204
    again = patch(RESTART, '"*"')
    assert (again.status, again.body) == (200, reply.body)


def test_call_through_tls_with_a_token_hears_its_tone(door: Door) -> None:
    async def call() -> int:
        options = {"token": TOKEN, "trusted": str(door.files.cert)}
        async with whip_call(door.url, 650, **options) as caller:
            await caller.hear(10)
            return await caller.delete()

    assert door.lab.in_client(call) == 200


def test_renewed_certificate_is_served_without_a_restart(door: Door) -> None:
    write_certificate(door.files, 2, address=EDGE_ADDRESSES[4])
    wait_until(lambda: door.lab.edge.said("certificate read anew"), "the new certificate", 30)
    assert door.ask("GET", "/whip").status == 204  # trusts the new one alone


def test_ice_restart_in_a_call_goes_on_without_a_gap(lab: Lab) -> None:
    ours = IceFragment(IceCredentials("aiortcagain", "p" * 24))

    async def call() -> tuple[list[int], int]:
        async with whip_call(WHIP_URL, 550) as caller:
            status, body, etag = await caller.patch(str(ours), "*")
            assert status == 200
            assert etag != caller.etag
            # Begun, and not used: the call goes on with the old credentials.
            assert _entries(lab) == 2
            assert await caller.check() is not None
            await caller.hear(5)
            assert _entries(lab) == 2
            caller.take_over(ours, IceFragment.parse(body))
            assert await caller.check() is not None
            entries = _entries(lab, 1)
            await caller.hear(10)
            assert await caller.check() is not None
            status, _, _ = await caller.patch(str(ours), caller.etag)
            assert status == 412
            missed = caller.detector.windows - caller.detector.tone_windows
            assert await caller.delete() == 200
            return [entries], missed

    entries, missed = lab.in_client(call)
    assert entries == [1]
    # The start of the codec; a gap of 30 packets would be six windows.
    assert missed <= 4
    assert lab.edge.status()["verdicts_add_up"] is True


def _entries(lab: Lab, wanted: int | None = None) -> int:
    """Return how many ufrags the kernel steers by; waits for `wanted`."""

    def count() -> int:
        hello = [lab.edge.transceiver(slot)["counters"] for slot in range(2)]
        begun = sum(int(one["ice_restarts"]) for one in hello)
        done = sum(int(one["ice_restarts_done"]) for one in hello)
        return 1 + begun - done

    if wanted is not None:
        wait_until(lambda: count() == wanted, f"{wanted} ufrags")
    return count()
