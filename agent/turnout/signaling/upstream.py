"""One of our transceivers as signaling sees it: its control socket and its stream of events.

`Upstream.run` is a task of the edge. It follows `GET /events` for ever and keeps steering in step
with what the transceiver owns; the WHIP door posts offers through the same object.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from turnout.errors import SignalingError, SteeringError, WireError
from turnout.signaling.events import Event, Hello, IceRestarted, SessionEnded, parse_event
from turnout.steering import Steering
from turnout.wire import sdpfrag
from turnout.wire.problem import parse_problem
from turnout.wire.sdp import CONTENT_TYPE

log = logging.getLogger(__name__)

OFFER_TIMEOUT_S = 5.0
DELETE_TIMEOUT_S = 2.0
# "alive" comes every second; this many silent seconds in a row and the transceiver hangs.
SILENT_SECONDS = 3
RECONNECT_FIRST_S = 0.1
RECONNECT_MOST_S = 1.0
# A hello names every session with about 120 bytes: room for more sessions than a core can carry.
LINE_MOST_BYTES = 4 << 20

# What ends a stream of events: the socket, the transceiver's words, or what they ask of steering.
_STREAM_ERRORS = (aiohttp.ClientError, OSError, SignalingError, SteeringError, WireError)
# What a client can mend in its offer; anything else that goes wrong is the upstream's.
_OFFER_STATUSES = frozenset({400, 406, 413, 415, 422})

OnEnded = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The answer's SDP as the upstream wrote it, and the path of the session's resource."""

    body: str
    location: str


def session_location(session_id: str) -> str:
    """Return the resource of a session on our transceiver; the id is the one we gave it."""
    return f"/whip/{session_id}"


class OfferTaker(Protocol):
    """What the WHIP door asks of an upstream, ours or not. Every method raises SignalingError."""

    @property
    def weight(self) -> int:
        """Its share of new sessions beside the others'."""

    async def post_offer(self, offer: str, session_id: str) -> UpstreamAnswer:
        """Ask for a session under that id.

        Below 500 the offer is to blame. After any error or cancellation the session may live, and
        `delete` makes sure that it does not.
        """

    async def restart(self, session_id: str, fragment: str) -> str | None:
        """Ask for an ICE restart with the client's fragment; None if that has nothing new."""

    async def trickle(self, session_id: str, fragment: str) -> None:
        """Tell of the client's candidates."""

    async def delete(self, location: str) -> None:
        """End a session; that it is gone already is as good."""


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
                body = await response.read()
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
                body = await response.read()
                if response.status == 404:
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
        """End a session; that it is gone already is as good. Raises SignalingError (5xx)."""
        try:
            async with self._ready().delete(
                f"http://transceiver{location}",
                timeout=aiohttp.ClientTimeout(total=DELETE_TIMEOUT_S),
            ) as response:
                if response.status not in {200, 404}:
                    raise _refusal(response.status, await response.read(), self.slot)
        except (aiohttp.ClientError, OSError) as error:
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
        async with aiohttp.ClientSession(connector=connector) as self._http:
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
                raise _refusal(response.status, await response.read(), self.slot)
            async for event in _read_events(response.content):
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
