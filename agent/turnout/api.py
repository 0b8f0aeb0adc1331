"""The local API: owners and sessions over a UNIX socket, as JSON.

It is how software on this host has its own media server's sessions steered: register its lane as
an owner, then name each session's ufrag and password before the client sends its first packet.
The edge serves it on api.sock; turnout/client.py is its Python client.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import ClientPayloadError, web

from turnout.draining import Drains
from turnout.errors import (
    OwnerDraining,
    SignalingError,
    SteeringError,
    UfragInUse,
    UnknownOwner,
    UnknownSession,
)
from turnout.handoff import HandOffs
from turnout.signaling.problem import build_problem_middleware
from turnout.steering import Owner, Session, Steering
from turnout.wire.sdp import ICE_PWD, ICE_UFRAG

BODY_MOST_BYTES = 64 * 1024
DEADLINE_MOST_S = 7 * 24 * 3600

_DOORS = (
    "GET /status, GET and POST /owners, DELETE /owners/<slot>, "
    "GET /drains, POST and DELETE /owners/<slot>/drain, "
    "POST /owners/<slot>/hand-off, "
    "GET and POST /sessions, DELETE /sessions/<id>"
)
_ICE_CHARACTERS = "characters of A-Z a-z 0-9 + /"


def build_api(
    steering: Steering,
    drains: Drains,
    hand_offs: HandOffs,
    status: Callable[[], dict[str, Any]],
) -> web.Application:
    """Build the application; `status` gives what GET /status answers."""
    api = _Api(steering, drains, hand_offs, status)
    app = web.Application(
        middlewares=[build_problem_middleware(_DOORS)], client_max_size=BODY_MOST_BYTES
    )
    app.router.add_get("/status", api.get_status)
    app.router.add_get("/owners", api.get_owners)
    app.router.add_post("/owners", api.post_owner)
    app.router.add_delete("/owners/{slot}", api.delete_owner)
    app.router.add_get("/drains", api.get_drains)
    app.router.add_post("/owners/{slot}/drain", api.post_drain)
    app.router.add_delete("/owners/{slot}/drain", api.delete_drain)
    app.router.add_post("/owners/{slot}/hand-off", api.post_hand_off)
    app.router.add_get("/sessions", api.get_sessions)
    app.router.add_post("/sessions", api.post_session)
    app.router.add_delete("/sessions/{id}", api.delete_session)
    return app


class _Api:
    def __init__(
        self,
        steering: Steering,
        drains: Drains,
        hand_offs: HandOffs,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._steering = steering
        self._drains = drains
        self._hand_offs = hand_offs
        self._status = status

    async def get_status(self, _request: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def get_owners(self, _request: web.Request) -> web.Response:
        owners = self._steering.owners.values()
        return web.json_response([self._owner_record(owner) for owner in owners])

    async def post_owner(self, request: web.Request) -> web.Response:
        body = await _read_object(request, ("lane",))
        lane = _whole_number(body, "lane", 1, 65535)
        try:
            owner = self._steering.register_owner(lane)
        except SteeringError as error:
            raise SignalingError(400, "Lane cannot be registered", str(error)) from error
        return web.json_response(self._owner_record(owner), status=201)

    async def delete_owner(self, request: web.Request) -> web.Response:
        text = request.match_info["slot"]
        owner = self._steering.owners.get(_parse_slot(text))
        if owner is None:
            raise SignalingError(404, "No such owner", f"slot {text}: no owner has it")
        if owner.kind != "registered":
            raise SignalingError(
                409,
                "Owner is not registered",
                f"slot {owner.slot}: belongs to a transceiver or an [[upstream]] of this edge, "
                "which lives as long as `turnout run`; only registered owners are deleted",
            )
        record = self._owner_record(owner)
        self._steering.remove_owner(owner.slot)
        return web.json_response(record)

    async def get_drains(self, _request: web.Request) -> web.Response:
        return web.json_response(self._drains.describe())

    async def post_drain(self, request: web.Request) -> web.Response:
        slot = _parse_slot(request.match_info["slot"])
        body = await _read_object(request, ("deadline_seconds",))
        seconds = _whole_number(body, "deadline_seconds", 0, DEADLINE_MOST_S)
        return self._drain_reply(slot, lambda: self._drains.start(slot, seconds))

    async def delete_drain(self, request: web.Request) -> web.Response:
        slot = _parse_slot(request.match_info["slot"])
        return self._drain_reply(slot, lambda: self._drains.lift(slot))

    async def post_hand_off(self, request: web.Request) -> web.Response:
        slot = _parse_slot(request.match_info["slot"])
        body = await _read_object(request, ("to",))
        to = None if body["to"] is None else _whole_number(body, "to", 0, 65535)
        try:
            return web.json_response(await self._hand_offs.move_all(slot, to))
        except UnknownOwner as error:
            raise SignalingError(404, "No such owner", str(error)) from error
        except SteeringError as error:
            raise SignalingError(409, "Nothing to hand over", str(error)) from error

    def _drain_reply(self, slot: int, act: Callable[[], dict[str, Any]]) -> web.Response:
        try:
            return web.json_response(act())
        except UnknownOwner as error:
            raise SignalingError(404, "No such owner", f"slot {slot}: no owner has it") from error
        except SteeringError as error:
            raise SignalingError(409, "Nothing to drain", str(error)) from error

    async def get_sessions(self, _request: web.Request) -> web.Response:
        sessions = self._steering.sessions.values()
        return web.json_response([_session_record(session) for session in sessions])

    async def post_session(self, request: web.Request) -> web.Response:
        body = await _read_object(request, ("ufrag", "pwd", "owner"))
        ufrag = _text(body, "ufrag")
        if not ICE_UFRAG.fullmatch(ufrag):
            raise _invalid("ufrag", repr(ufrag[:300]), f"4 to 256 {_ICE_CHARACTERS}")
        pwd = _text(body, "pwd")
        if not ICE_PWD.fullmatch(pwd):
            # A password is not repeated where logs may keep it.
            raise _invalid("pwd", f"of {len(pwd)} characters", f"22 to 256 {_ICE_CHARACTERS}")
        slot = _whole_number(body, "owner", 0, 65535)
        try:
            session = self._steering.add_session(ufrag, pwd, slot)
        except UfragInUse as error:
            raise SignalingError(409, "Ufrag in use", str(error)) from error
        except UnknownOwner as error:
            slots = ", ".join(map(str, self._steering.owners)) or "none yet"
            raise _invalid("owner", str(slot), f"the slot of an owner: {slots}") from error
        except OwnerDraining as error:
            detail = f"{error}: name another owner, or lift the drain"
            raise SignalingError(409, "Owner is drained", detail) from error
        except SteeringError as error:
            raise SignalingError(503, "Session not taken", str(error)) from error
        return web.json_response(_session_record(session), status=201)

    async def delete_session(self, request: web.Request) -> web.Response:
        try:
            session = self._steering.remove_session(request.match_info["id"])
        except UnknownSession as error:
            raise SignalingError(404, "No such session", str(error)) from error
        return web.json_response(_session_record(session))

    def _owner_record(self, owner: Owner) -> dict[str, Any]:
        return {
            "slot": owner.slot,
            "generation": owner.generation,
            "lane": owner.lane,
            "state": owner.state,
            "kind": owner.kind,
            "sessions": len(self._steering.owner_sessions(owner.slot)),
        }


def _session_record(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "owner": session.slot,
        "ufrag": session.ufrag,
        "kind": session.kind,
    }


async def _read_object(request: web.Request, fields: Sequence[str]) -> dict[str, Any]:
    """Read a JSON object that has exactly these fields."""
    wanted = f"a JSON object with {', '.join(fields)}"
    try:
        raw = await request.read()
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise SignalingError(400, "Bad body", f"the body did not arrive: {error}") from error
    try:
        # UTF-8, whatever charset is named (RFC 8259 section 8.1).
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SignalingError(400, "Body is not JSON", f"{error}; send {wanted}") from error
    if not isinstance(body, dict):
        raise SignalingError(400, "Body is no object", f"{str(body)[:80]!r}: send {wanted}")
    for name in body:
        if name not in fields:
            raise _invalid(name, "unknown field", wanted)
    for name in fields:
        if name not in body:
            raise _invalid(name, "missing", wanted)
    return body


def _text(body: dict[str, Any], field: str) -> str:
    value = body[field]
    if not isinstance(value, str):
        raise _invalid(field, type(value).__name__, "text")
    return value


def _whole_number(body: dict[str, Any], field: str, least: int, most: int) -> int:
    value = body[field]
    # JSON's true and false are ints to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _invalid(field, repr(value)[:80], f"a whole number from {least} to {most}")
    return value


def _parse_slot(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise _invalid("slot", repr(text[:80]), "a whole number from 0 to 65535")
    return int(text)


def _invalid(field: str, value: str, allowed: str) -> SignalingError:
    return SignalingError(400, f"Invalid {field}", f"{field}: {value}; allowed: {allowed}")
