"""Calls of a real client, aiortc, straight to a transceiver process on loopback."""

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction

import pytest
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame

from turnout.calling.tone import FRAME_SAMPLES, SAMPLE_RATE, ToneDetector, ToneSource
from unit.transceiver.process import SDP, Process

TONE_HZ = 997


class Tone(MediaStreamTrack):
    """A sine, one frame every 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._source = ToneSource(TONE_HZ)
        self._number = 0
        self._start = asyncio.get_running_loop().time()

    async def recv(self) -> AudioFrame:
        due = self._start + self._number / 50
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(self._source.next_frame())
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self._number * FRAME_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        self._number += 1
        return frame


async def hear(connection: RTCPeerConnection, frames: int) -> ToneDetector:
    """Decode so many frames of 20 ms; silence before the first sound is not judged."""
    detector = ToneDetector(TONE_HZ)
    tracks = [receiver.track for receiver in connection.getReceivers()]
    track = next(one for one in tracks if one is not None and one.kind == "audio")
    async with asyncio.timeout(20):
        for _ in range(frames):
            frame = await track.recv()
            assert isinstance(frame, AudioFrame)
            stereo = array("h", bytes(frame.planes[0]))
            detector.feed(stereo[: frame.samples * 2 : 2])
    return detector


@asynccontextmanager
async def aiortc_call(running: Process, *sections: str) -> AsyncIterator[RTCPeerConnection]:
    connection = RTCPeerConnection()
    for kind in sections or ("audio",):
        if kind == "audio":
            connection.addTrack(Tone())
        elif kind == "video":
            connection.addTransceiver("video")
        else:
            connection.createDataChannel("events")
    await connection.setLocalDescription(await connection.createOffer())
    async with running.http() as http:
        offer = connection.localDescription.sdp
        async with http.post("/whip", data=offer, headers=SDP) as response:
            assert response.status == 201, await response.text()
            answer = RTCSessionDescription(await response.text(), "answer")
    await connection.setRemoteDescription(answer)
    try:
        yield connection
    finally:
        await connection.close()


async def closed(connection: RTCPeerConnection) -> None:
    """Wait until the client knows that the call is over."""
    known = asyncio.Event()

    @connection.on("connectionstatechange")
    def look() -> None:
        if connection.connectionState == "closed":
            known.set()

    look()
    async with asyncio.timeout(10):
        await known.wait()


async def test_aiortc_call_hears_its_own_tone(running: Process) -> None:
    async with aiortc_call(running) as connection:
        detector = await hear(connection, 100)
        assert detector.tone_windows >= detector.windows - 2, detector.describe_stranger()
        assert detector.windows == 20
        status = await running.status()
        (session,) = status["sessions"]
        assert (session["ice"], session["dtls"]) == ("connected", "connected")
        assert session["srtp_profile"] == "SRTP_AEAD_AES_128_GCM"
        assert session["packets_in"] == session["packets_out"] > 90
        counters = status["counters"]
        assert sum(count for name, count in counters.items() if name.startswith("drop__")) == 0
        assert counters["probes_answered"] == counters["probes"] == 1
    async with asyncio.timeout(5):
        while (status := await running.status())["sessions"]:
            pass
    assert status["counters"]["sessions_ended__bye"] == 1


@pytest.mark.parametrize(
    "sections",
    [("audio", "video"), ("video", "audio"), ("audio", "data"), ("video", "data", "audio")],
    ids="+".join,
)
async def test_aiortc_call_that_offers_more_than_audio_hears_its_tone(
    running: Process, sections: tuple[str, ...]
) -> None:
    async with aiortc_call(running, *sections) as connection:
        detector = await hear(connection, 50)
        assert detector.tone_windows >= detector.windows - 2, detector.describe_stranger()


async def test_aiortc_two_calls_at_once_hear_their_own_tones(running: Process) -> None:
    async with aiortc_call(running) as first, aiortc_call(running) as second:
        for detector in await asyncio.gather(hear(first, 50), hear(second, 50)):
            assert detector.tone_windows >= detector.windows - 2, detector.describe_stranger()


async def test_aiortc_call_is_told_when_it_is_deleted(running: Process) -> None:
    async with aiortc_call(running) as connection:
        await hear(connection, 10)
        (session,) = (await running.status())["sessions"]
        async with running.http() as http, http.delete(f"/whip/{session['id']}") as response:
            assert response.status == 200
        await closed(connection)


async def test_aiortc_call_is_told_when_the_process_stops(running: Process) -> None:
    async with aiortc_call(running) as connection:
        await hear(connection, 10)
        running.process.terminate()
        await closed(connection)
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
