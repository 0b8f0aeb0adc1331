"""A media server that is not ours, as signaling sees it: WHIP in front, one UDP port behind.

One `[[upstream]]` of the settings each. It is spoken to as any WHIP client would, and nobody tells
us what becomes of its sessions: so its health is asked for, sessions that have no flow are ended,
and resource_book.py keeps where each session's resource is. `run` is a task of the edge.
"""

import asyncio
import logging
from pathlib import Path
from urllib.parse import urljoin

import aiohttp

from turnout.errors import SignalingError, WireError
from turnout.settings import OWNERS_MAX, Settings
from turnout.settings.tables import UpstreamSettings
from turnout.signaling.answer import parse_upstream_answer
from turnout.signaling.offer_taker import OnEnded, UpstreamAnswer, session_location
from turnout.signaling.resource_book import Resource, ResourceBook
from turnout.steering import Steering
from turnout.wire import sdpfrag
from turnout.wire.problem import parse_problem
from turnout.wire.sdp import CONTENT_TYPE, Candidate, SessionDescription
from turnout.wire.sdpfrag import IceFragment

log = logging.getLogger(__name__)

OFFER_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 3.0
HEALTH_PAUSE_S = 2.0
# One that misses a look may be busy; the second one means it.
LOOKS_MISSED_MOST = 2
# No flow for so long: the client never came, or its flow was swept, itself after 120 s of silence.
SILENT_S = 60.0
# How often a session that has one is looked at for that: each look reads the kernel's maps.
FLOW_LOOK_S = 10.0

_OFFER_STATUSES = frozenset({400, 406, 413, 415, 422})
_NETWORK_ERRORS = (aiohttp.ClientError, OSError, UnicodeDecodeError)


class MediaServer:
    """An upstream by WHIP over HTTP, on TCP or a UNIX socket (an upstream.OfferTaker)."""

    def __init__(self, slot: int, row: UpstreamSettings, steering: Steering, runtime: Path) -> None:
        """Take its row of the settings; `runtime` is where its book of resources is kept."""
        self.slot = slot
        self.weight = row.weight
        self._row = row
        self._steering = steering
        self._book = ResourceBook(runtime / f"upstream-{row.name}.json")
        self._endpoint = row.whip or "http://localhost/whip"
        self._http: aiohttp.ClientSession | None = None
        self._missed = LOOKS_MISSED_MOST  # unknown yet is as good as away
        self._flow_seen_at: dict[str, float] = {}

    @property
    def is_up(self) -> bool:
        """Whether it answered lately."""
        return self._missed < LOOKS_MISSED_MOST

    # --- what the door asks for

    async def post_offer(self, offer: str, session_id: str) -> UpstreamAnswer:
        """Ask for a session; see upstream.OfferTaker."""
        try:
            async with self._ready().post(
                self._endpoint,
                data=offer.encode(),
                headers={"Content-Type": CONTENT_TYPE},
                timeout=aiohttp.ClientTimeout(total=OFFER_TIMEOUT_S),
            ) as reply:
                body = await reply.read()
                if reply.status != 201:
                    raise self._refusal(reply.status, body)
                location = reply.headers.get("Location")
                if location is None:
                    raise self._fault("its 201 has no Location: it is no WHIP endpoint")
                etag = reply.headers.get("ETag", "*")
                text = body.decode()
                resource = Resource(urljoin(str(reply.url), location), etag)
        except _NETWORK_ERRORS as error:
            raise self._unreachable(error) from error
        # Noted before anything can fail, so that `delete` finds it.
        self._book.put(session_id, resource)
        answer, credentials = parse_upstream_answer(text)
        self._check_port(answer)
        self._book.put(session_id, resource.with_credentials(credentials))
        return UpstreamAnswer(text, session_location(session_id))

    async def restart(self, session_id: str, fragment: str) -> str | None:
        """Pass an ICE restart on; see upstream.OfferTaker."""
        resource = self._resource(session_id)
        status, etag, body = await self._patch(resource, fragment, "*")
        if status == 204:
            return None
        try:
            credentials = IceFragment.parse(body).credentials
        except WireError as error:
            raise self._fault(f"its answer to an ICE restart: {error}") from error
        if credentials is None:
            raise self._fault("its answer to an ICE restart has no credentials")
        session = self._steering.sessions.get(session_id)
        if session is not None and session.restart is not None:
            # The restart before this one: the client has used it, or would not restart again.
            self._steering.finish_restart(session_id, session.restart.ufrag)
        self._book.put(session_id, resource.with_credentials(credentials, etag or resource.etag))
        return body

    async def trickle(self, session_id: str, fragment: str) -> None:
        """Pass the client's candidates on; see upstream.OfferTaker."""
        resource = self._resource(session_id)
        await self._patch(resource, fragment, resource.etag)

    async def delete(self, location: str) -> None:
        """End a session; that it is gone already is as good. Raises SignalingError (5xx)."""
        session_id = location.rpartition("/")[2]
        resource = self._book.get(session_id)
        if resource is None:
            return  # it never came to be, or it was swept
        try:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            async with self._session().delete(resource.url, timeout=timeout) as reply:
                if not reply.ok and reply.status not in {404, 410}:
                    raise self._refusal(reply.status, await reply.read())
        except _NETWORK_ERRORS as error:
            raise self._unreachable(error) from error
        finally:
            self._book.remove(session_id)
            self._flow_seen_at.pop(session_id, None)

    # --- the task

    async def run(self, on_ended: OnEnded | None = None) -> None:
        """Ask for its health and end what is silent, for ever."""
        self._adopt()
        loop = asyncio.get_running_loop()
        connector = aiohttp.UnixConnector(self._row.socket) if self._row.socket else None
        async with aiohttp.ClientSession(connector=connector) as self._http:
            while True:
                await self._look()
                await self.end_silent(loop.time(), on_ended)
                await asyncio.sleep(HEALTH_PAUSE_S)

    def _adopt(self) -> None:
        """Take over what an agent before this one has left: owner, sessions and their flows."""
        steering = self._steering
        steering.register_owner(self._row.lane, slot=self.slot, kind="upstream")
        steering.set_owner_state(self.slot, "draining")  # until it has answered
        steering.reconcile_owner(self.slot, self._book.credentials())

    async def _look(self) -> None:
        was_up = self.is_up
        problem = await self._ask_health()
        self._missed = 0 if problem is None else self._missed + 1
        if self.is_up == was_up:
            return
        # Never "down": that its HTTP is away says nothing about the calls that it carries.
        self._steering.set_owner_state(self.slot, "active" if self.is_up else "draining")
        if self.is_up:
            log.info("upstream %s: answers, lane %d", self._row.name, self._row.lane)
        else:
            log.warning("upstream %s: takes no new sessions: %s", self._row.name, problem)

    async def _ask_health(self) -> str | None:
        """Return None if it is well, else what is wrong."""
        try:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            async with self._session().options(self._endpoint, timeout=timeout) as reply:
                # 405 and 501 come from a server that has no OPTIONS (RFC 9725 wants it) but lives.
                if reply.status == 404 or (reply.status >= 500 and reply.status != 501):
                    return f"OPTIONS {self._endpoint} was answered {reply.status}"
        except _NETWORK_ERRORS as error:
            return str(error) or type(error).__name__
        return None

    async def end_silent(self, now: float, on_ended: OnEnded | None = None) -> None:
        """End the sessions that have had no flow for SILENT_S. `now` is monotonic seconds."""
        steering = self._steering
        if steering.flows_of(self.slot).unclaimed:
            return  # a flow that egress healed names no session before its client's next check
        alive = {session.id for session in steering.owner_sessions(self.slot)}
        for session_id in self._flow_seen_at.keys() - alive:
            del self._flow_seen_at[session_id]
        for session_id in alive:
            since = self._flow_seen_at.setdefault(session_id, now)
            if now - since < FLOW_LOOK_S:
                continue
            if steering.has_flow(session_id):
                self._flow_seen_at[session_id] = now
            elif now - since >= SILENT_S:
                await self._end_silent_session(session_id, on_ended)

    async def _end_silent_session(self, session_id: str, on_ended: OnEnded | None) -> None:
        log.info("session %s: ended, no flow for %.0f s", session_id, SILENT_S)
        self._steering.remove_session(session_id)
        if on_ended is not None:
            on_ended(session_id, "no_flow")
        try:
            await self.delete(session_location(session_id))
        except SignalingError as error:
            log.warning("session %s: not deleted: %s", session_id, error)

    # --- requests

    async def _patch(
        self, resource: Resource, fragment: str, if_match: str
    ) -> tuple[int, str | None, str]:
        try:
            async with self._ready().patch(
                resource.url,
                data=fragment.encode(),
                headers={"Content-Type": sdpfrag.CONTENT_TYPE, "If-Match": if_match},
                timeout=aiohttp.ClientTimeout(total=OFFER_TIMEOUT_S),
            ) as reply:
                body = await reply.read()
                if reply.status in {404, 410}:
                    raise SignalingError(
                        410, "Session ended", "the media server has ended it; POST a new offer"
                    )
                if reply.status not in {200, 204}:
                    raise self._refusal(reply.status, body)
                return reply.status, reply.headers.get("ETag"), body.decode()
        except _NETWORK_ERRORS as error:
            raise self._unreachable(error) from error

    def _resource(self, session_id: str) -> Resource:
        resource = self._book.get(session_id)
        if resource is None:
            raise SignalingError(
                410, "Session ended", f"session {session_id} has ended; POST a new offer"
            )
        return resource

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise SignalingError(503, "Media server starting", f"{self._row.name}: not asked yet")
        return self._http

    def _ready(self) -> aiohttp.ClientSession:
        if not self.is_up:
            raise SignalingError(503, "Media server away", f"{self._row.name} does not answer")
        return self._session()

    def _check_port(self, answer: SessionDescription) -> None:
        """Refuse an answer that names other ports only: its packets would come past the kernel."""
        ports = {
            candidate.port
            for section in answer.media
            for value in section.attributes.values("candidate")
            if (candidate := _parse_host_candidate(value)) is not None
        }
        if ports and self._row.lane not in ports:
            named = ", ".join(map(str, sorted(ports)))
            raise self._fault(
                f"its answer names UDP port {named}; it has to listen on its lane "
                f"{self._row.lane} alone, for all sessions"
            )

    def _fault(self, reason: str) -> SignalingError:
        return SignalingError(502, "Media server failed", f"upstream {self._row.name}: {reason}")

    def _refusal(self, status: int, body: bytes) -> SignalingError:
        """Make its error ours: what the client can mend keeps its status and words."""
        title, detail = parse_problem(body) or (
            "Offer refused" if status in _OFFER_STATUSES else "Media server failed",
            body[:200].decode("utf-8", "replace").strip() or f"it answered {status}",
        )
        if status in _OFFER_STATUSES:
            return SignalingError(status, title, detail)
        return SignalingError(502, title, f"upstream {self._row.name}, status {status}: {detail}")

    def _unreachable(self, error: Exception) -> SignalingError:
        reason = str(error) or type(error).__name__
        where = self._row.whip or self._row.socket
        return SignalingError(
            503, "Media server unreachable", f"upstream {self._row.name} at {where}: {reason}"
        )


def build_media_servers(settings: Settings, steering: Steering) -> dict[int, MediaServer]:
    """Build one for each [[upstream]], by slot: from the top, ours may grow from the bottom."""
    return {
        slot: MediaServer(slot, row, steering, settings.runtime)
        for slot, row in zip(range(OWNERS_MAX - 1, -1, -1), settings.upstreams, strict=False)
    }


def _parse_host_candidate(value: str | None) -> Candidate | None:
    """Return a host candidate for UDP; None for any other."""
    try:
        candidate = Candidate.parse(value or "")
    except WireError:
        return None  # a .local name, say: the client's answer has ours instead anyway
    is_host = candidate.kind == "host" and candidate.protocol == "udp"
    return candidate if is_host else None
