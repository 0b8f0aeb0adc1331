from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from turnout.api import build_api
from unit.memory_maps import MemoryMaps, build_steering
from unit.steering_parts import build_drains, no_hand_offs

PWD = "abcdefghijklmnopqrstuv"
LANE = 20500


class Api:
    def __init__(self, directory: Path) -> None:
        self.maps = MemoryMaps()
        self.steering = build_steering(self.maps)
        drains = build_drains(self.steering, directory)
        self.app = build_api(
            self.steering, drains, no_hand_offs(self.steering), lambda: {"instance": "default"}
        )
        self.http: TestClient[Any, Any]

    async def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        async with self.http.request(method, path, json=body) as response:
            if response.status >= 400:
                assert response.content_type == "application/problem+json"
            return response.status, await response.json()

    async def refusal(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        status, problem = await self.request(method, path, body)
        assert problem["status"] == status
        return status, problem["detail"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    made = Api(tmp_path)
    async with TestClient(TestServer(made.app)) as made.http:
        yield made


async def test_status_is_what_the_edge_says(api: Api) -> None:
    assert await api.request("GET", "/status") == (200, {"instance": "default"})


async def test_owner_comes_and_goes(api: Api) -> None:
    status, owner = await api.request("POST", "/owners", {"lane": LANE})
    assert status == 201
    assert owner == {
        "slot": 2,
        "generation": 1,
        "lane": LANE,
        "state": "active",
        "kind": "registered",
        "sessions": 0,
    }
    assert await api.request("GET", "/owners") == (200, [owner])
    assert await api.request("DELETE", "/owners/2") == (200, owner)
    assert await api.request("GET", "/owners") == (200, [])


async def test_delete_owner_ends_its_sessions(api: Api) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    await api.request("POST", "/sessions", {"ufrag": "abcd", "pwd": PWD, "owner": 2})
    assert (await api.request("DELETE", "/owners/2"))[1]["sessions"] == 1
    assert await api.request("GET", "/sessions") == (200, [])
    assert api.maps.session_of("abcd") is None


async def test_delete_owner_of_this_edge_is_refused(api: Api) -> None:
    api.steering.register_owner(20000, slot=0, incarnation=1, kind="transceiver")
    status, detail = await api.refusal("DELETE", "/owners/0")
    assert status == 409
    assert "turnout run" in detail
    assert 0 in api.steering.owners


@pytest.mark.parametrize(
    ("slot", "status", "said"),
    [("7", 404, "slot 7"), ("x", 400, "'x'"), ("-1", 400, "'-1'"), ("9" * 400, 400, "0 to 65535")],
)
async def test_delete_owner_that_is_none_is_refused(
    api: Api, slot: str, status: int, said: str
) -> None:
    got, detail = await api.refusal("DELETE", f"/owners/{slot}")
    assert got == status
    assert said in detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"lane": 20000}, "lane 20000: 20000-20001 belong to this edge's own transceivers"),
        ({"lane": 1000}, "lane 1000: must be within 20000-20999"),
        ({"lane": 0}, "lane: 0; allowed: a whole number from 1 to 65535"),
        ({"lane": "20500"}, "lane: '20500'; allowed: a whole number"),
        ({"lane": True}, "lane: True"),
        ({"lane": 1.5}, "lane: 1.5"),
        ({}, "lane: missing"),
        ({"lane": LANE, "port": 1}, "port: unknown field"),
        ([LANE], "a JSON object with lane"),
        ("x", "a JSON object with lane"),
    ],
)
async def test_post_owner_names_field_value_and_allowed(api: Api, body: object, said: str) -> None:
    status, detail = await api.refusal("POST", "/owners", body)
    assert status == 400
    assert said in detail
    assert dict(api.steering.owners) == {}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60000])
async def test_post_body_that_is_no_json_is_refused(api: Api, body: bytes) -> None:
    async with api.http.post("/owners", data=body) as response:
        assert response.status == 400
        assert "a JSON object with lane" in (await response.json())["detail"]


async def test_post_body_too_large_is_refused(api: Api) -> None:
    async with api.http.post("/owners", data=b" " * (64 * 1024 + 1)) as response:
        assert response.status == 413


async def test_session_comes_and_goes(api: Api) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    status, session = await api.request(
        "POST", "/sessions", {"ufrag": "abcd", "pwd": PWD, "owner": 2}
    )
    assert status == 201
    assert session == {"id": session["id"], "owner": 2, "ufrag": "abcd", "kind": "api"}
    assert api.maps.session_of("abcd") is not None
    assert await api.request("GET", "/sessions") == (200, [session])
    assert (await api.request("GET", "/owners"))[1][0]["sessions"] == 1
    assert await api.request("DELETE", f"/sessions/{session['id']}") == (200, session)
    assert api.maps.session_of("abcd") is None
    status, detail = await api.refusal("DELETE", f"/sessions/{session['id']}")
    assert status == 404
    assert session["id"] in detail


async def test_post_session_live_ufrag_is_a_conflict(api: Api) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    body = {"ufrag": "abcd", "pwd": PWD, "owner": 2}
    await api.request("POST", "/sessions", body)
    status, detail = await api.refusal("POST", "/sessions", body)
    assert status == 409
    assert "'abcd'" in detail
    assert len(api.steering.sessions) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ufrag": "abc"}, "ufrag: 'abc'; allowed: 4 to 256 characters of A-Z a-z 0-9 + /"),
        ({"ufrag": "a" * 257}, "4 to 256"),
        ({"ufrag": "ab:cd"}, "ufrag: 'ab:cd'"),
        ({"ufrag": "abcd\n"}, "ufrag: 'abcd\\n'"),
        ({"ufrag": "\u00e4bcd"}, "4 to 256"),
        ({"ufrag": 1234}, "ufrag: int; allowed: text"),
        ({"pwd": "secret"}, "pwd: of 6 characters; allowed: 22 to 256"),
        ({"pwd": None}, "pwd: NoneType; allowed: text"),
        ({"owner": 7}, "owner: 7; allowed: the slot of an owner: 2"),
        ({"owner": "2"}, "owner: '2'"),
        ({"owner": -1}, "owner: -1"),
        ({"id": "x"}, "id: unknown field"),
    ],
)
async def test_post_session_names_field_value_and_allowed(
    api: Api, change: dict[str, object], said: str
) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    body = {"ufrag": "abcd", "pwd": PWD, "owner": 2} | change
    status, detail = await api.refusal("POST", "/sessions", body)
    assert status == 400
    assert said in detail
    assert dict(api.steering.sessions) == {}


async def test_drained_owner_takes_no_new_sessions_and_keeps_its_own(api: Api) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    await api.request("POST", "/sessions", {"ufrag": "abcd", "pwd": PWD, "owner": 2})
    status, drain = await api.request("POST", "/owners/2/drain", {"deadline_seconds": 600})
    assert status == 200
    seconds_left = drain.pop("seconds_left")
    assert 590 < seconds_left <= 600
    assert drain == {"slot": 2, "sessions": 1, "ended": "", "sessions_ended": 0}
    assert (await api.request("GET", "/owners"))[1][0]["state"] == "draining"
    status, detail = await api.refusal(
        "POST", "/sessions", {"ufrag": "efgh", "pwd": PWD, "owner": 2}
    )
    assert status == 409
    assert "owner 2: it is drained" in detail
    assert [one["ufrag"] for one in (await api.request("GET", "/sessions"))[1]] == ["abcd"]

    status, drain = await api.request("DELETE", "/owners/2/drain")
    assert (status, drain["ended"]) == (200, "undrained")
    assert await api.request("GET", "/drains") == (200, [])
    body = {"ufrag": "efgh", "pwd": PWD, "owner": 2}
    assert (await api.request("POST", "/sessions", body))[0] == 201


@pytest.mark.parametrize(
    ("request_line", "body", "status", "said"),
    [
        ("POST /owners/7/drain", {"deadline_seconds": 1}, 404, "slot 7"),
        ("DELETE /owners/7/drain", None, 404, "slot 7"),
        ("DELETE /owners/2/drain", None, 409, "nobody drains it"),
        ("POST /owners/2/drain", {}, 400, "deadline_seconds: missing"),
        ("POST /owners/2/drain", {"deadline_seconds": -1}, 400, "deadline_seconds: -1"),
        ("POST /owners/2/drain", {"deadline_seconds": 1e9}, 400, "from 0 to 604800"),
        ("POST /owners/x/drain", {"deadline_seconds": 1}, 400, "slot: 'x'"),
    ],
)
async def test_drain_that_cannot_be_is_refused(
    api: Api, request_line: str, body: object, status: int, said: str
) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    method, path = request_line.split()
    got, detail = await api.refusal(method, path, body)
    assert got == status
    assert said in detail
    assert not api.steering.drained


async def test_passwords_are_never_told(api: Api) -> None:
    await api.request("POST", "/owners", {"lane": LANE})
    for pwd in (PWD, "tooshort"):
        await api.request("POST", "/sessions", {"ufrag": "abcd", "pwd": pwd, "owner": 2})
        _, problem = await api.request(
            "POST", "/sessions", {"ufrag": "abcd", "pwd": pwd, "owner": 2}
        )
        assert pwd not in str(problem)
    assert PWD not in str(await api.request("GET", "/sessions"))


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("PUT", "/owners", 405)])
async def test_request_to_another_door_is_told_what_is_here(
    api: Api, method: str, path: str, status: int
) -> None:
    got, detail = await api.refusal(method, path)
    assert got == status
    assert "DELETE /sessions/<id>" in detail


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b'{"lane": 20500}', {"Content-Encoding": "gzip"}, id="no gzip"),
        pytest.param(b'{"lane": %s}' % (b"9" * 5000), {}, id="5,000 digits"),
        pytest.param(b"\xff", {"Content-Type": "application/json; charset=none"}, id="no UTF-8"),
    ],
)
async def test_body_that_cannot_be_read_is_refused(
    api: Api, body: bytes, headers: dict[str, str]
) -> None:
    """Found by fuzzing: each was answered 500."""
    async with api.http.post("/owners", data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["detail"]


async def test_charset_is_not_asked_for(api: Api) -> None:
    headers = {"Content-Type": "application/json; charset=none"}
    async with api.http.post("/owners", data=b'{"lane": 20500}', headers=headers) as response:
        assert response.status == 201
