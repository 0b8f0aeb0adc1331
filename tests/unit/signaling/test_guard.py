"""The WHIP door with a policy: tokens, budgets, what clients are told of ICE servers."""

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
