"""A browser that restarts ICE in a call: restartIce() and a PATCH of its own, with the tone on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from interop.browser import CHROMIUM, open_browser
from system.lab import WHIP_URL, Lab, wait_until

PAGE = Path(__file__).with_name("call_page.html")
# With listen, reaching and statistics of call_page.html.
CALL = r"""
async ([url, hz]) => {
    const context = new AudioContext();
    const oscillator = new OscillatorNode(context, {frequency: hz});
    const microphone = new MediaStreamAudioDestinationNode(context, {channelCount: 1});
    oscillator.connect(microphone);
    oscillator.start();
    const pc = new RTCPeerConnection();
    const tracked = new Promise(resolve => { pc.ontrack = event => resolve(event.streams[0]); });
    pc.addTrack(microphone.stream.getAudioTracks()[0], microphone.stream);
    pc.addTransceiver("video");  // answered idle: the call is none the worse for it
    await pc.setLocalDescription();
    await reaching(pc, "iceGatheringState", ["complete"], "icegatheringstatechange");
    const reply = await fetch(url, {
        method: "POST", headers: {"Content-Type": "application/sdp"}, body: pc.localDescription.sdp,
    });
    const answer = await reply.text();
    await pc.setRemoteDescription({type: "answer", sdp: answer});
    const speaker = new Audio();
    speaker.muted = true;
    speaker.srcObject = await tracked;
    await reaching(pc, "connectionState", ["connected"], "connectionstatechange");
    await speaker.play();
    const analyser = new AnalyserNode(context, {fftSize: 4096, smoothingTimeConstant: 0});
    new MediaStreamAudioSourceNode(context, {mediaStream: speaker.srcObject}).connect(analyser);
    const before = await listen(analyser, hz, 2);
    const old = await pairOf(pc);

    const listening = listen(analyser, hz, 6);
    pc.restartIce();
    await pc.setLocalDescription();
    const mine = pc.localDescription.sdp;
    const resource = new URL(reply.headers.get("Location"), url);
    const patched = await fetch(resource, {
        method: "PATCH",
        headers: {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"},
        body: ["ice-ufrag", "ice-pwd"].map(name => `a=${name}:${read(mine, name)}\r\n`).join(""),
    });
    const fragment = await patched.text();
    let sdp = answer;
    for (const name of ["ice-ufrag", "ice-pwd"]) {
        sdp = sdp.replaceAll(`${name}:${read(answer, name)}`, `${name}:${read(fragment, name)}`);
    }
    await pc.setRemoteDescription({type: "answer", sdp});
    const after = await listening;
    const candidates = await fetch(resource, {
        method: "PATCH",
        headers: {
            "Content-Type": "application/trickle-ice-sdpfrag",
            "If-Match": patched.headers.get("ETag"),
        },
        body: "a=end-of-candidates\r\n",
    });
    const figures = await statistics(pc);
    const renewed = await pairOf(pc);
    const gone = await fetch(resource, {method: "DELETE"});
    pc.close();
    await context.close();
    return {
        ...figures, before, after, old, renewed,
        etags: [reply.headers.get("ETag"), patched.headers.get("ETag")],
        statuses: [reply.status, patched.status, candidates.status, gone.status],
    };

    function read(text, name) {
        return new RegExp(`a=${name}:(\\S+)`).exec(text)[1];
    }
    async function pairOf(pc) {
        const all = [...(await pc.getStats()).values()];
        const transport = all.find(one => one.type === "transport");
        const pair = all.find(one => one.id === transport.selectedCandidatePairId);
        const local = all.find(one => one.id === pair.localCandidateId);
        return {port: local.port, ufrag: local.usernameFragment};
    }
}
"""

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt: chromium)"),
]


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Iterator[Browser]:
    with sync_playwright() as playwright, open_browser(playwright, lab) as browser:
        yield browser


def test_chromium_restarts_ice_and_the_tone_goes_on(lab: Lab, browser: Browser) -> None:
    page = browser.new_page()
    # The edge's own page: to Chromium whatever else is a stranger's, kept out of private networks.
    page.goto(WHIP_URL.removesuffix("whip"))
    _, _, functions = PAGE.read_text().partition("<script>")
    functions = functions.partition("</script>")[0].replace('"use strict";', "")
    script = f"async (given) => {{ {functions} return ({CALL})(given); }}"
    call: dict[str, Any] = page.evaluate(script, [WHIP_URL, 600])
    page.close()
    assert call["statuses"] == [201, 200, 204, 200]
    assert call["etags"][0] != call["etags"][1]
    assert call["old"]["ufrag"] != call["renewed"]["ufrag"]
    for part in ("before", "after"):
        heard = call[part]
        assert heard["tone"] >= 0.7 * heard["windows"], (part, heard)
    assert call["lost"] <= 5
    counters = [lab.edge.transceiver(slot)["counters"] for slot in range(2)]
    assert sum(one["ice_restarts"] for one in counters) == 1
    assert sum(one["ice_restarts_done"] for one in counters) == 1
    status = lab.edge.status()
    assert status["shared_port_datagrams"] == 0
    assert status["verdicts_add_up"] is True
    wait_until(lambda: lab.edge.api("GET", "/sessions") == [], "the session is gone")
