"""The WHIP door with a policy: tokens, budgets, what clients are told of ICE servers."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from turnout.settings.tables import IceServer
from turnout.signaling.ended import EndedSessions
from turnout.signaling.policy import WhipPolicy, build_links
from unit.signaling.test_whip import OFFER, SDP, Edge, edge

__all__ = ["edge"]

TURN = IceServer(("turn:turn.example?transport=udp", "turns:turn.example"), 'us"er', "pass\\word")


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [(None, 'Bearer realm="whip"'), ("Bearer wrong", 'Bearer realm="whip", error="invalid_token"')],
)
async def test_request_without_the_token_is_unauthorized(
    edge: Edge, authorization: str | None, challenge: str
) -> None:
    edge.policy = WhipPolicy(token="secret")
    sent = {} if authorization is None else {"Authorization": authorization}
    for method, path in (
        ("POST", "/whip"),
        ("GET", "/whip"),
        ("PATCH", "/whip/abc"),
        ("DELETE", "/whip/abc"),
        ("GET", "/nothing"),
    ):
        async with edge.http.request(method, path, data=OFFER, headers=SDP | sent) as response:
            assert response.status == 401, path
            assert response.headers["WWW-Authenticate"] == challenge
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Authorization" in (await response.json())["detail"]
    assert edge.transceivers[0].offers == 0


async def test_request_with_the_token_is_served(edge: Edge) -> None:
    edge.policy = WhipPolicy(token="secret")
    sent = {"Authorization": "Bearer secret"}
    async with edge.http.post("/whip", data=OFFER, headers=SDP | sent) as response:
        assert response.status == 201
    async with edge.http.delete(response.headers["Location"], headers=sent) as response:
        assert response.status == 200


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/whip"), ("OPTIONS", "/whip/a")])
async def test_preflight_needs_no_token(edge: Edge, method: str, path: str) -> None:
    edge.policy = WhipPolicy(token="secret")
    async with edge.http.request(method, path) as response:
        assert response.status == 200
        assert "Link" not in response.headers


async def test_offers_past_the_budget_are_told_when_to_come_again(edge: Edge) -> None:
    edge.policy = WhipPolicy(offers_a_minute=2)
    assert [(await edge.post())[0] for _ in range(2)] == [201, 201]
    asked = [transceiver.offers for transceiver in edge.transceivers]
    status, headers, problem = await edge.post()
    assert status == 429
    assert 0 < int(headers["Retry-After"]) <= 30
    assert "127.0.0.1 may make 2 offers a minute" in problem["detail"]
    assert [transceiver.offers for transceiver in edge.transceivers] == asked


async def test_budget_is_that_of_the_client_behind_a_trusted_proxy(edge: Edge) -> None:
    edge.policy = WhipPolicy(offers_a_minute=1, trusted_proxies=(ip_network("127.0.0.0/8"),))
    statuses = []
    for client in ("198.51.100.1", "198.51.100.2", "198.51.100.1"):
        headers = SDP | {"X-Forwarded-For": client}
        async with edge.http.post("/whip", data=OFFER, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [201, 201, 429]


async def test_answer_names_every_ice_server(edge: Edge) -> None:
    edge.policy = WhipPolicy(ice_servers=(IceServer(("stun:stun.example",)), TURN))
    async with edge.http.post("/whip", data=OFFER, headers=SDP) as response:
        assert response.status == 201
        links = response.headers.getall("Link")
    assert links == build_links(edge.policy.ice_servers)
    assert links[0] == '<stun:stun.example>; rel="ice-server"'
    assert links[1] == (
        '<turn:turn.example?transport=udp>; rel="ice-server"; username="us\\"er"; '
        'credential="pass\\\\word"; credential-type="password"'
    )
    assert [str(link["url"]) for link in response.links.getall("ice-server")]


def test_policy_does_not_show_its_secrets() -> None:
    shown = repr(WhipPolicy(token="secret", ice_servers=(TURN,)))
    assert "secret" not in shown
    assert "pass" not in shown


def test_ended_sessions_past_the_limit_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.signaling.ended.REMEMBERED", 2)
    ended = EndedSessions()
    for session_id in ("a", "b", "c"):
        ended.remember(session_id, "bye")
    assert ended.why("a") is None
    assert "goodbye" in (ended.why("c") or "")
    ended.remember("b", "something new")
    assert ended.why("b") == "something new"
    ended.forget("b")
    ended.forget("b")
    assert ended.why("b") is None


async def body_of(*chunks: bytes, pause: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if pause is not None:
        await pause.wait()


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_body_past_the_limit_of_now_is_too_large(
    edge: Edge, method: str, is_chunked: bool
) -> None:
    _, headers, _ = await edge.post()
    edge.policy = WhipPolicy(sdp_bytes=5000)
    path = "/whip" if method == "POST" else headers["Location"]
    kind = SDP if method == "POST" else {"Content-Type": "application/trickle-ice-sdpfrag"}
    body = b"a=x\r\n" * 1001
    sent = body_of(body[:3000], body[3000:]) if is_chunked else body
    async with edge.http.request(method, path, data=sent, headers=kind | {"If-Match": "*"}) as got:
        assert got.status == 413
        assert got.content_type == "application/problem+json"
        assert "5000 bytes" in (await got.json())["detail"]


async def test_body_that_does_not_come_in_time_is_408(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnout.signaling.whip.BODY_PATIENCE_S", 0.2)
    pause = asyncio.Event()
    sent = body_of(OFFER[:100], pause=pause)
    async with edge.http.post("/whip", data=sent, headers=SDP) as response:
        assert response.status == 408
        assert "0.2 s" in (await response.json())["detail"]
    pause.set()
    assert edge.transceivers[0].offers == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"a=x\r\n" * 2000, "lines"),
        (b"m=audio 0 RTP/AVP 0\r\n" * 65, "media sections"),
        (b"m=audio 9 UDP/TLS/RTP/SAVPF" + b" 0" * 129 + b"\r\n", "formats"),
    ],
    ids=["lines", "sections", "formats"],
)
async def test_offer_of_too_many_parts_is_refused(edge: Edge, lines: bytes, said: str) -> None:
    status, _, problem = await edge.post(OFFER + lines)
    assert status == 400
    assert f"more than {said}" in "".join(c for c in problem["detail"] if not c.isdigit()).replace(
        "  ", " "
    )
    assert edge.transceivers[0].offers == 0
