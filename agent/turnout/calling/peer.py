"""The aiortc side of a test call: the only place that imports aiortc and av.

Both are the optional extra `turnout[call]` and take half a second to import, so they are
imported when a call is opened. Everything of theirs is untyped here.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from time import monotonic
from typing import Any

from turnout.calling.report import Media
from turnout.calling.sdp import format_address
from turnout.calling.tone import FRAME_SAMPLES, SAMPLE_RATE, ToneSource, at_48_khz
from turnout.errors import CallError

_FRAME_S = FRAME_SAMPLES / SAMPLE_RATE
# The other side's jitter buffer takes a burst after a hiccup of the sender's; more is dropped.
_CATCH_UP_S = 0.2


def open_peer(tone: int) -> "Peer":
    """Return a peer that will send the tone. Raises CallError where aiortc is not installed."""
    try:
        import aiortc  # noqa: PLC0415 - optional, and slow to import
        import av  # noqa: PLC0415
    except ImportError as error:
        raise CallError(
            f"placing a call needs aiortc ({error}): install it with pip install 'turnout[call]'"
        ) from error
    return Peer(aiortc, av, ToneSource(tone))


class Peer:
    """An aiortc peer connection with one audio track each way."""

    def __init__(self, aiortc: Any, av: Any, source: ToneSource) -> None:
        self._aiortc = aiortc
        self._ended_error = aiortc.mediastreams.MediaStreamError
        # No STUN server: the edge is either reachable or not, and the default one is a stranger.
        self.connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self._sender = self.connection.addTrack(_tone_track(aiortc, av, source))
        self._receiver = self.connection.getTransceivers()[0].receiver
        self.dtls = self._sender.transport
        self.ice = self.dtls.transport

    @property
    def ice_state(self) -> str:
        """Return new, checking, completed, failed or closed (of aiortc's transport)."""
        return str(self.ice.state)

    @property
    def dtls_state(self) -> str:
        """Return new, connecting, connected, closed or failed (of aiortc's transport)."""
        return str(self.dtls.state)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the state of ICE or DTLS changes."""
        self.ice.on("statechange", callback)
        self.dtls.on("statechange", callback)

    async def create_offer(self) -> str:
        """Return the offer with all host candidates in it."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def apply_answer(self, sdp: str) -> None:
        """Start ICE. Raises ValueError for an answer that does not fit the offer."""
        answer = self._aiortc.RTCSessionDescription(sdp=sdp, type="answer")
        try:
            await self.connection.setRemoteDescription(answer)
        except (self._aiortc.exceptions.InvalidStateError, AttributeError, KeyError) as error:
            # aiortc reads an answer without checking that every part of it is there.
            raise ValueError(f"{type(error).__name__} {error}") from error

    def has_received(self) -> bool:
        """Whether an RTP packet of the other side has come."""
        return bool(self._receiver.getSynchronizationSources())

    async def decoded_audio(self) -> AsyncIterator["array[int]"]:
        """Yield the left channel of what comes back, s16 at 48 kHz, until the call ends."""
        while True:
            try:
                frame = await self._receiver.track.recv()
            except self._ended_error:
                return
            channels = len(frame.layout.channels)
            samples = array("h", bytes(frame.planes[0])[: frame.samples * channels * 2])
            yield at_48_khz(samples[::channels], frame.sample_rate)

    def pair(self) -> tuple[str | None, str | None]:
        """Return the nominated pair's local and remote address:port."""
        pair = self._nominated()
        if pair is None:
            return None, None
        return format_address(*pair.local_addr), format_address(*pair.remote_addr)

    async def read_media(self) -> Media:
        """Read the counters of a call that is still up."""
        stats: dict[str, Any] = {}
        for entry in (await self.connection.getStats()).values():
            stats[entry.type] = entry
        sent, received = stats.get("outbound-rtp"), stats.get("inbound-rtp")
        remote = stats.get("remote-inbound-rtp")
        rtcp_s = remote.roundTripTime if remote else None
        return Media(
            sent=sent.packetsSent if sent else 0,
            received=received.packetsReceived if received else 0,
            lost_back=received.packetsLost if received else 0,
            lost_out=remote.packetsLost if remote else None,
            rtt_ice_ms=await self._check_round_trip_ms(),
            rtt_rtcp_ms=None if rtcp_s is None else round(rtcp_s * 1000, 2),
        )

    async def close(self) -> None:
        """Send BYE and the DTLS close, stop everything."""
        await self.connection.close()

    def _nominated(self) -> Any:
        # aiortc offers no public way to the pair; the extra pins its minor version.
        connection = self.ice._connection  # noqa: SLF001
        return next(iter(connection._nominated.values()), None)  # noqa: SLF001

    async def _check_round_trip_ms(self) -> float | None:
        """Time one connectivity check on the nominated pair, None if it goes unanswered."""
        pair = self._nominated()
        if pair is None:
            return None
        connection = self.ice._connection  # noqa: SLF001
        request = connection.build_request(pair, nominate=False)
        key = connection.remote_password.encode()
        started = monotonic()
        try:
            async with asyncio.timeout(2):
                await pair.protocol.request(request, pair.remote_addr, integrity_key=key)
        except (TimeoutError, self._transaction_error):
            return None
        return round((monotonic() - started) * 1000, 2)

    @property
    def _transaction_error(self) -> type[Exception]:
        from aioice.stun import TransactionError  # noqa: PLC0415 - comes with aiortc

        error: type[Exception] = TransactionError
        return error


def _tone_track(aiortc: Any, av: Any, source: ToneSource) -> Any:
    class ToneTrack(aiortc.MediaStreamTrack):  # type: ignore[misc] # a class of an untyped module
        """Sends a frame of the tone every 20 ms by the clock, without drift."""

        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            self._samples = 0
            self._due = monotonic()

        async def recv(self) -> Any:
            now = monotonic()
            self._due = max(self._due + _FRAME_S, now - _CATCH_UP_S)
            await asyncio.sleep(max(0.0, self._due - now))
            frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
            frame.planes[0].update(source.next_frame())
            frame.sample_rate = SAMPLE_RATE
            frame.time_base = Fraction(1, SAMPLE_RATE)
            frame.pts = self._samples
            self._samples += FRAME_SAMPLES
            return frame

    return ToneTrack()
