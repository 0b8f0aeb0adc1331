"""Chromium's verdict on the transceiver's answers: the browser makes the offer and takes it back.

No packet flows here; what is asked is whether setRemoteDescription accepts the answer and what
the browser makes of it.
"""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.wire.sdp import SessionDescription

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
LOCAL = LocalDescription(
    ufrag="serv",
    pwd="p" * 24,
    fingerprint_sha256=":".join(["AB"] * 32),
    candidates=[("192.0.2.2", 3478), ("2001:db8::2", 3478)],
    session_id=77,
    ssrc=1234,
    cname="echo",
)
OFFER = """
async ([setup, policy]) => {
    const pc = new RTCPeerConnection({bundlePolicy: policy});
    globalThis.pc = pc;
    globalThis.streams = [];
    pc.ontrack = event => globalThis.streams.push(event.streams.length);
    for (const [kind, direction] of setup) {
        if (kind === "application") {
            pc.createDataChannel("events");
        } else {
            pc.addTransceiver(kind, {direction});
        }
        // An offer set at once fixes the section's place: else Chromium sorts audio to the front.
        await pc.setLocalDescription(await pc.createOffer());
    }
    return pc.localDescription.sdp;
}
"""
TAKE_ANSWER = """
async (sdp) => {
    try {
        await pc.setRemoteDescription({type: "answer", sdp});
    } catch (error) {
        return {error: String(error)};
    }
    return {
        error: null,
        signaling: pc.signalingState,
        directions: pc.getTransceivers().map(t => [t.mid, t.currentDirection]),
        streams: globalThis.streams,
        candidates: pc.remoteDescription.sdp.split("a=candidate:").length - 1,
    };
}
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield await browser.new_page()
        finally:
            await browser.close()


async def negotiate(page: Page, sections: list[tuple[str, str]], policy: str) -> dict[str, Any]:
    offer = SessionDescription.parse(await page.evaluate(OFFER, [sections, policy]))
    answer, _ = build_answer(offer, LOCAL)
    outcome: dict[str, Any] = await page.evaluate(TAKE_ANSWER, str(answer))
    return outcome


AUDIO = ("audio", "sendrecv")
VIDEO = ("video", "sendrecv")
DATA = ("application", "")


@pytest.mark.parametrize("policy", ["balanced", "max-bundle", "max-compat"])
async def test_answer_chromium_every_order_of_sections_is_accepted(page: Page, policy: str) -> None:
    expected: list[tuple[list[tuple[str, str]], list[list[str]]]] = [
        ([AUDIO], [["0", "sendrecv"]]),
        ([AUDIO, AUDIO], [["0", "sendrecv"], ["1", "inactive"]]),
        ([AUDIO, VIDEO], [["0", "sendrecv"], ["1", "inactive"]]),
        ([VIDEO, AUDIO], [["0", "inactive"], ["1", "sendrecv"]]),
        ([AUDIO, DATA], [["0", "sendrecv"]]),
        ([DATA, AUDIO], [["1", "sendrecv"]]),
        ([AUDIO, VIDEO, DATA], [["0", "sendrecv"], ["1", "inactive"]]),
        ([AUDIO, DATA, VIDEO], [["0", "sendrecv"], ["2", "inactive"]]),
        ([VIDEO, AUDIO, DATA], [["0", "inactive"], ["1", "sendrecv"]]),
        ([VIDEO, DATA, AUDIO], [["0", "inactive"], ["2", "sendrecv"]]),
        ([DATA, AUDIO, VIDEO], [["1", "sendrecv"], ["2", "inactive"]]),
        ([DATA, VIDEO, AUDIO], [["1", "inactive"], ["2", "sendrecv"]]),
    ]
    for sections, directions in expected:
        outcome = await negotiate(page, sections, policy)
        assert outcome["error"] is None, sections
        assert outcome["signaling"] == "stable"
        assert outcome["directions"] == directions, sections
        assert outcome["candidates"] == len(LOCAL.candidates)


@pytest.mark.parametrize(
    ("offered", "current", "streams"),
    [("sendrecv", "sendrecv", [1]), ("sendonly", "sendonly", []), ("recvonly", "recvonly", [1])],
)
async def test_answer_chromium_direction_is_mirrored_and_tracks_have_a_stream(
    page: Page, offered: str, current: str, streams: list[int]
) -> None:
    outcome = await negotiate(page, [("audio", offered)], "max-bundle")
    assert outcome["error"] is None
    assert outcome["directions"] == [["0", current]]
    assert outcome["streams"] == streams
