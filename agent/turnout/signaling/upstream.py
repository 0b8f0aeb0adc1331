"""One of our transceivers as signaling sees it: its control socket and its stream of events.

`Upstream.run` is a task of the edge. It follows `GET /events` for ever and keeps steering in step
with what the transceiver owns; the WHIP door posts offers through the same object.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from turnout.errors import KernelError, SignalingError, SteeringError, WireError
from turnout.flows import Way
from turnout.signaling.events import Event, Hello, IceRestarted, SessionEnded, parse_event
from turnout.signaling.offer_taker import OnEnded, UpstreamAnswer, session_location
from turnout.steering import Steering
from turnout.wire import sdpfrag
from turnout.wire.problem import parse_problem
from turnout.wire.sdp import CONTENT_TYPE

log = logging.getLogger(__name__)

OFFER_TIMEOUT_S = 5.0
DELETE_TIMEOUT_S = 2.0
HAND_OFF_TIMEOUT_S = 8.0
# Later a transceiver lets go of nothing: it may take 5 s to say what has become of it.
LET_GO_SECONDS = 2.5
# "alive" comes every second; this many silent seconds in a row and the transceiver hangs.
SILENT_SECONDS = 3
RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 1.0
# A hello names every session with about 120 bytes: room for more sessions than a core can carry.
LINE_MOST_BYTES = 4 << 20
# An answer is smaller than the largest offer; what a hand-off tells of one session is too.
BODY_MOST_BYTES = 1 << 20

# What ends a stream of events: the socket, the transceiver's words, or what they ask of steering.
_STREAM_ERRORS = (
    *(aiohttp.ClientError, OSError),
    *(KernelError, SignalingError, SteeringError, WireError),
)
# What a client can mend in its offer; anything else that goes wrong is the upstream's.
_OFFER_STATUSES = frozenset({400, 406, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Door:
    """Where a transceiver takes sessions from another one, and what that one has to say."""

    name: str
    secret: str


class Upstream:
    """A transceiver behind a UNIX socket; usable only between a hello and the stream's end."""

    weight = 1

    def __init__(self, slot: int, socket: Path) -> None:
        self.slot = slot
        self._socket = socket
        self._http: aiohttp.ClientSession | None = None
        # Counts hellos; an offer that spans two of them cannot know what became of its session.
        self._incarnations_seen = 0
        self._is_up = False
        # Sessions asked for but not yet steered -> whether they have ended already.
        self._asked: dict[str, bool] = {}
        self._leaving: dict[str, asyncio.Event] = {}

    @property
    def is_up(self) -> bool:
        """Whether the transceiver has said hello and not fallen silent since."""
        return self._is_up

    async def post_offer(self, offer: str, session_id: str) -> UpstreamAnswer:
        """Ask for a session under that id.

        Raises SignalingError: below 500 the offer is to blame and the detail is the upstream's,
        from 500 on the upstream is. When it returns, the session lives; after any error or
        cancellation it may, and `delete` makes sure that it does not.
        """
        http = self._ready()
        seen = self._incarnations_seen
        self._asked[session_id] = False
        try:
            async with http.post(
                "http://transceiver/whip",
                data=offer.encode(),
                headers={"Content-Type": CONTENT_TYPE, "Turnout-Session": session_id},
                timeout=aiohttp.ClientTimeout(total=OFFER_TIMEOUT_S),
            ) as response:
                body = await _read_body(response)
                if response.status != 201:
                    raise _refusal(response.status, body, self.slot)
                location = response.headers.get("Location", session_location(session_id))
            answer = UpstreamAnswer(body.decode(), location)
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            raise self._unreachable(error) from error
        finally:
            has_ended = self._asked.pop(session_id)
        if has_ended or seen != self._incarnations_seen or not self._is_up:
            raise SignalingError(
                502,
                "Session lost",
                f"transceiver {self.slot} ended the session while it answered the offer",
            )
        return answer

    async def restart(self, session_id: str, fragment: str) -> str | None:
        """Ask for an ICE restart with the client's fragment; returns the upstream's.

        None where the client has no new credentials. Raises SignalingError; then the session goes
        on as it was, if it lives (410 where it does not).
        """
        try:
            async with self._ready().patch(
                f"http://transceiver{session_location(session_id)}",
                data=fragment.encode(),
                headers={"Content-Type": sdpfrag.CONTENT_TYPE, "If-Match": "*"},
                timeout=aiohttp.ClientTimeout(total=OFFER_TIMEOUT_S),
            ) as response:
                body = await _read_body(response)
                if response.status == 404:
                    await self._see_off(session_id)
                    raise SignalingError(
                        410, "Session ended", f"session {session_id} has ended; POST a new offer"
                    )
                if response.status not in {200, 204}:
                    raise _refusal(response.status, body, self.slot)
                return body.decode() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            raise self._unreachable(error) from error

    async def trickle(self, session_id: str, fragment: str) -> None:
        """Do nothing: an ICE-lite agent finds clients by their checks."""

    async def delete(self, location: str) -> None:
        """End a session; that it is gone already is as good. Raises SignalingError (5xx).

        One that is being handed over is steered to who has it when this returns.
        """
        try:
            async with self._ready().delete(
                f"http://transceiver{location}",
                timeout=aiohttp.ClientTimeout(total=DELETE_TIMEOUT_S),
            ) as response:
                if response.status not in {200, 404}:
                    raise _refusal(response.status, await _read_body(response), self.slot)
                if response.status == 404:
                    await self._see_off(location.rpartition("/")[2])
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    # --- a hand-off

    async def open_door(self) -> Door:
        """Have it let another transceiver in that hands sessions over. Raises SignalingError."""
        record = await self._post("/door", None)
        return Door(str(record["door"]), str(record["secret"]))

    async def hand_off(self, door: Door, session_id: str) -> tuple[str, str, Sequence[Way]]:
        """Have it hand a session to the transceiver that has opened the door.

        Returns moved, stayed or lost, why, and the client's ways to it. Raises SignalingError: then
        nobody knows what has happened.
        """
        if not self._is_up:
            return "stayed", f"transceiver {self.slot} is starting or has failed", ()
        body = {
            "door": door.name,
            "secret": door.secret,
            "sessions": [session_id],
            # Of the monotonic clock, which is one for all processes.
            "until": asyncio.get_running_loop().time() + LET_GO_SECONDS,
        }
        try:
            record = await self._post("/hand-off", body)
        except SignalingError as error:
            is_deaf = isinstance(error.__cause__, aiohttp.ClientConnectorError)
            if is_deaf or error.status < 500 or error.status == 502:
                return "stayed", str(error), ()
            raise
        for kind in ("moved", "stayed"):
            for entry in record[kind]:
                flows = entry.get("flows", ())
                ways = [(one["vip"], one["client"][0], one["client"][1]) for one in flows]
                return kind, entry.get("reason", ""), ways
        return "lost", record["lost"][0]["reason"], ()

    @contextmanager
    def expecting(self, session_id: str) -> Iterator[Callable[[], bool]]:
        """Notice, while the context lasts, whether a session ends that is not steered there yet."""
        self._asked[session_id] = False
        try:
            yield lambda: self._asked[session_id]
        finally:
            del self._asked[session_id]

    @contextmanager
    def leaving(self, session_id: str) -> Iterator[None]:
        """Have who misses the session here wait until the context ends, and it is steered anew."""
        self._leaving[session_id] = asyncio.Event()
        try:
            yield
        finally:
            self._leaving.pop(session_id).set()

    async def _see_off(self, session_id: str) -> None:
        if session_id in self._leaving:
            await self._leaving[session_id].wait()

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        try:
            async with self._ready().post(
                f"http://transceiver{path}",
                json=body,
                timeout=aiohttp.ClientTimeout(total=HAND_OFF_TIMEOUT_S),
            ) as response:
                if not response.ok:
                    reply = await _read_body(response)
                    _, detail = parse_problem(reply) or ("", "")
                    raise SignalingError(
                        response.status, "Not handed over", detail or f"status {response.status}"
                    )
                record: dict[str, Any] = json.loads(await _read_body(response))
                return record
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    async def run(self, steering: Steering, on_ended: OnEnded | None = None) -> None:
        """Follow the transceiver for ever and keep `steering` in step with it.

        `on_ended` is told the id and reason of each session that ends on the transceiver's side.
        """
        loop = asyncio.get_running_loop()
        pause = RECONNECT_FIRST_S
        # One that has not spoken yet may be starting: an adopted owner's packets flow on for as
        # long as a hang would take to be seen.
        down_at = loop.time() + SILENT_SECONDS
        # A kept connection could lead to a process that is dead by the next offer.
        connector = aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True)
        # What it says counts as it comes: a few packed bytes must not become a gigabyte.
        session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        async with session as self._http:
            while True:
                try:
                    await self._follow(self._http, steering, on_ended)
                    reason = "its event stream ended"
                except aiohttp.ClientPayloadError:
                    reason = "its event stream broke off"
                except _STREAM_ERRORS as error:
                    reason = str(error) or type(error).__name__
                if self._is_up:
                    self._is_up = False
                    down_at = loop.time()
                    pause = RECONNECT_FIRST_S
                if loop.time() >= down_at:
                    self._mark_down(steering, reason, on_ended)
                await asyncio.sleep(pause)
                pause = min(2 * pause, RECONNECT_MOST_S)

    async def _follow(
        self, http: aiohttp.ClientSession, steering: Steering, on_ended: OnEnded | None
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_SECONDS)
        async with http.get("http://transceiver/events", timeout=timeout) as response:
            if response.status != 200:
                raise _refusal(response.status, await _read_body(response), self.slot)
            greeted = False
            async for event in _read_events(response.content):
                if isinstance(event, Hello) == greeted:
                    raise WireError("a stream of events starts with the one hello it has")
                greeted = True
                self._apply(event, steering, on_ended)

    def _apply(self, event: Event, steering: Steering, on_ended: OnEnded | None) -> None:
        match event:
            case Hello():
                steering.register_owner(
                    event.lane, slot=self.slot, incarnation=event.incarnation, kind="transceiver"
                )
                steering.reconcile_owner(self.slot, event.sessions)
                self._incarnations_seen += 1
                self._is_up = True
                log.info(
                    "transceiver %d: up on lane %d with %d sessions",
                    self.slot,
                    event.lane,
                    len(event.sessions),
                )
            case SessionEnded():
                if event.session_id in self._asked:
                    self._asked[event.session_id] = True
                self._end_session(steering, event.session_id, event.reason, on_ended)
            case IceRestarted():
                session = steering.sessions.get(event.session_id)
                if session is not None and session.slot == self.slot:
                    steering.finish_restart(session.id, event.ufrag)
                    log.info("session %s: ICE restarted, ufrag %s", session.id, event.ufrag)
            case _:
                pass

    def _mark_down(self, steering: Steering, reason: str, on_ended: OnEnded | None) -> None:
        owner = steering.owners.get(self.slot)
        if owner is None:
            return
        if owner.state != "down":
            log.warning("transceiver %d: down: %s", self.slot, reason)
            steering.set_owner_state(self.slot, "down")
        for session in steering.owner_sessions(self.slot):
            self._end_session(steering, session.id, "owner_down", on_ended)
        # What an earlier agent left and nobody confirmed goes as well.
        steering.reconcile_owner(self.slot, ())

    def _end_session(
        self, steering: Steering, session_id: str, reason: str, on_ended: OnEnded | None
    ) -> None:
        session = steering.sessions.get(session_id)
        if session is None or session.slot != self.slot:
            return
        steering.remove_session(session_id)
        log.info("session %s: ended, %s", session_id, reason)
        if on_ended is not None:
            on_ended(session_id, reason)

    def _ready(self) -> aiohttp.ClientSession:
        if self._http is None or not self._is_up:
            raise SignalingError(
                503, "Transceiver down", f"transceiver {self.slot} is starting or has failed"
            )
        return self._http

    def _unreachable(self, error: Exception) -> SignalingError:
        reason = str(error) or type(error).__name__
        return SignalingError(
            503, "Transceiver unreachable", f"transceiver {self.slot} on {self._socket}: {reason}"
        )


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a body whole. Raises SignalingError: it is longer than any that we send."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_MOST_BYTES:
            detail = f"the transceiver's answer has more than {BODY_MOST_BYTES} bytes"
            raise SignalingError(502, "Answer too long", detail)
    return bytes(body)


async def _read_events(content: aiohttp.StreamReader) -> AsyncIterator[Event]:
    """Yield events until the stream ends; raises TimeoutError when it falls silent."""
    pending = b""
    while chunk := await _read_patiently(content):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_MOST_BYTES:
            raise WireError(f"an event of more than {LINE_MOST_BYTES} bytes")
        for line in lines:
            event = parse_event(line)
            if event is not None:
                yield event


async def _read_patiently(content: aiohttp.StreamReader) -> bytes:
    # Second by second: an agent that was itself held up for longer finds what came meanwhile on
    # its first turn, instead of one deadline that passed while nobody was looking.
    for _ in range(SILENT_SECONDS):
        try:
            # Not wait_for: until 3.12 it swallows a cancellation that comes with the result.
            async with asyncio.timeout(1.0):
                return await content.readany()
        except TimeoutError:
            continue
    raise TimeoutError(f"silent for {SILENT_SECONDS} s")


def _refusal(status: int, body: bytes, slot: int) -> SignalingError:
    """Make the upstream's error ours: what the client can mend keeps its status and words."""
    title, detail = parse_problem(body) or ("Transceiver failed", f"it answered {status}")
    if status in _OFFER_STATUSES:
        return SignalingError(status, title, detail)
    return SignalingError(502, title, f"transceiver {slot}: {detail}")
