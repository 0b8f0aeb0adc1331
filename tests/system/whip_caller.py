"""A caller whose HTTP is in the test's hands: TLS, tokens, PATCH; aiortc behind it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from turnout.calling import peer
from turnout.calling.tone import ToneDetector
from turnout.wire.sdpfrag import IceFragment

PATIENCE_S = 20.0
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


class Caller:
    """A call that is up. `heard` counts windows of 100 ms that held the tone."""

    def __init__(self, http: aiohttp.ClientSession, aiortc_peer: peer.Peer, tone: int) -> None:
        self.peer = aiortc_peer
        self.detector = ToneDetector(tone)
        self.etag = ""
        self.resource = ""
        self.headers: Mapping[str, str] = {}
        self._http = http

    async def connect(self, url: str) -> None:
        offer = await self.peer.create_offer()
        async with self._http.post(url, data=offer, headers=SDP) as reply:
            answer = await reply.text()
            assert reply.status == 201, answer
            self.headers = reply.headers
            self.etag = reply.headers["ETag"]
            self.resource = str(reply.url.join(reply.url.with_path(reply.headers["Location"])))
        await self.peer.apply_answer(answer)

    async def listen(self) -> None:
        async for samples in self.peer.decoded_audio():
            self.detector.feed(samples)

    async def hear(self, windows: int) -> None:
        """Wait until the tone was heard for so many more windows."""
        wanted = self.detector.tone_windows + windows
        async with asyncio.timeout(PATIENCE_S):
            while self.detector.tone_windows < wanted:  # noqa: ASYNC110 - aiortc has no event
                await asyncio.sleep(0.02)

    async def patch(self, body: str, if_match: str) -> tuple[int, str, str]:
        """PATCH the session; returns status, body and ETag."""
        headers = {**FRAGMENT, "If-Match": if_match}
        async with self._http.patch(self.resource, data=body, headers=headers) as reply:
            return reply.status, await reply.text(), reply.headers.get("ETag", "")

    def take_over(self, ours: IceFragment, theirs: IceFragment) -> None:
        """Give aiortc's ICE the credentials of a restart: it has no restart of its own.

        The pair stays; every check from now on is made and judged with the new ones.
        """
        assert ours.credentials is not None
        assert theirs.credentials is not None
        connection: Any = self.peer.ice._connection
        connection._local_username, connection._local_password = ours.credentials
        connection.remote_username, connection.remote_password = theirs.credentials

    async def check(self) -> float | None:
        """Make one connectivity check; returns its round trip in ms, None if nobody answered."""
        return await self.peer._check_round_trip_ms()

    async def delete(self) -> int:
        async with self._http.delete(self.resource) as reply:
            return reply.status


@asynccontextmanager
async def whip_call(
    url: str, tone: int, *, token: str = "", trusted: str = ""
) -> AsyncIterator[Caller]:
    """Place a call; `trusted` is the certificate file of a TLS door."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    context = ssl.create_default_context(cafile=trusted) if trusted else True
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        caller = Caller(http, peer.open_peer(tone), tone)
        try:
            await caller.connect(url)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(caller.listen())
                await caller.hear(5)
                yield caller
                listening.cancel()
        finally:
            await caller.peer.close()
