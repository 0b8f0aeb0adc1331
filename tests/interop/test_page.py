"""The page at `/`, as a person has it: Chromium loads it from a real edge and places calls."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.sync_api import Browser, Page, Playwright, Route, expect, sync_playwright

from interop.browser import CHROMIUM, open_browser
from system.edge_process import ask
from system.lab import Lab, counted, open_lab, wait_until
from system.namespaces import EDGE_ADDRESSES, command
from turnout.calling import whip

PAGE_URL = f"http://{EDGE_ADDRESSES[4]}:8080/"
EDGE_CANDIDATES = re.compile(r"(10\.77\.0\.1|\[fd77::1\]):3478")
# What makes an http origin a secure context: there is no certificate in this laboratory.
MICROPHONE_FLAGS = (
    f"--unsafely-treat-insecure-origin-as-secure={PAGE_URL.rstrip('/')}",
    "--use-fake-device-for-media-stream",
)
PATIENCE_MS = 30_000

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt: chromium)"),
]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Return the one Playwright of this module: a thread can have no second."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, lab: Lab) -> Iterator[Browser]:
    """Return a browser to which the page is http from another host: no microphone."""
    with open_browser(playwright, lab) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


@contextmanager
def open_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open the page; whatever it logs as an error or does not catch fails the test."""
    context = browser.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if _is_own_error(line) else None)
    page.goto(PAGE_URL)
    expect(page.locator("#host")).to_have_text("10.77.0.1:8080")
    yield page
    context.close()
    assert errors == []


def _is_own_error(line: Any) -> bool:
    # The browser itself logs every request that failed, and that is what some tests provoke.
    return line.type == "error" and "Failed to load resource" not in line.text


def call(page: Page) -> None:
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#state-text")).to_have_text("Connected", timeout=PATIENCE_MS)


def hang_up(page: Page) -> None:
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#state-text")).to_contain_text("Call ended after")


def expect_failure(page: Page, title: str, detail: str | re.Pattern[str]) -> None:
    expect(page.locator("#failure-title")).to_have_text(title, timeout=PATIENCE_MS)
    expect(page.locator("#failure-detail")).to_contain_text(detail)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()


def sessions(lab: Lab) -> list[Any]:
    found: list[Any] = lab.edge.api("GET", "/sessions")
    return found


@contextmanager
def udp_blocked(lab: Lab, rule: str = "udp dport 3478") -> Iterator[None]:
    inside = ("ip", "netns", "exec", lab.namespaces.client, "nft")
    chain = "add chain inet block out { type filter hook output priority 0; }"
    command(*inside, f"add table inet block; {chain}; add rule inet block out {rule} drop")
    try:
        yield
    finally:
        command(*inside, "delete table inet block")


def test_page_without_secure_context_says_why_and_hears_its_tone(lab: Lab, page: Page) -> None:
    before = lab.edge.counters()
    expect(page.get_by_role("radio", name="Microphone")).to_be_disabled()
    expect(page.get_by_role("radio", name="Test tone")).to_be_checked()
    expect(page.locator("#note")).to_contain_text("only to pages from https or from localhost")
    call(page)
    expect(page.locator("#sound-value")).to_have_text(
        re.compile(r"Echo heard at 4[34]\d Hz"), timeout=PATIENCE_MS
    )
    expect(page.locator("#fact-packets")).to_have_text(re.compile(r"\d{3} sent, \d{3} back, 0 l"))
    expect(page.locator("#fact-remote")).to_have_text(EDGE_CANDIDATES)
    expect(page.locator("#fact-ice")).to_have_text("connected")
    expect(page.locator("#fact-cipher")).to_have_text("DTLS 1.2, AES-128-GCM")
    for figure in ("rtt", "loss", "jitter"):
        expect(page.locator(f"#{figure}-value")).to_have_text(
            re.compile(r"\d"), timeout=PATIENCE_MS
        )
    times = page.locator("#phases .time").all_inner_texts()
    assert len(times) == 6
    assert all(re.fullmatch(r"[\d.]+ ms", time) for time in times), times
    assert len(sessions(lab)) == 1
    hang_up(page)
    wait_until(lambda: sessions(lab) == [], "the session is gone after DELETE")
    moved = counted(before, lab.edge.counters())
    assert moved["steered__rtp"] >= 100
    assert lab.edge.status()["shared_port_datagrams"] == 0


# Each canvas by its id: how many of its dots have the colour of a line.
PAINTED = """
() => Object.fromEntries([...document.querySelectorAll("canvas")].map((canvas) => {
    const pen = canvas.getContext("2d");
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const colours = ["--series-one", "--series-two"].map(
        (name) => parseInt(getComputedStyle(canvas).getPropertyValue(name).slice(1), 16));
    let dots = 0;
    for (let i = 0; i < data.length; i += 4)
        dots += colours.includes((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return [canvas.id, dots];
}))
"""


def test_page_plots_what_it_measures(page: Page) -> None:
    call(page)
    expect(page.locator("#sound-value")).to_contain_text("Echo heard", timeout=PATIENCE_MS)
    wait_until(lambda: min(page.evaluate(PAINTED).values()) > 10, "every plot shows a line")
    hang_up(page)


def test_page_is_used_with_the_keyboard_alone(lab: Lab, page: Page) -> None:
    page.keyboard.press("Tab")  # the only source that is enabled
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Call", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Connected", timeout=PATIENCE_MS)
    expect(page.get_by_role("button", name="Hang up")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("Call ended after")
    wait_until(lambda: sessions(lab) == [], "the session is gone after Escape")


def test_page_that_is_closed_in_a_call_ends_its_session(lab: Lab, page: Page) -> None:
    call(page)
    assert len(sessions(lab)) == 1
    page.goto("about:blank")
    wait_until(lambda: sessions(lab) == [], "the session is gone with its page")


def keep_screenshot(page: Page, name: str) -> None:
    """Write docs/img anew: `TURNOUT_SCREENSHOTS=docs/img pytest tests/interop/test_page.py`."""
    if directory := os.environ.get("TURNOUT_SCREENSHOTS"):
        page.mouse.move(0, 0)
        page.screenshot(path=Path(directory) / f"page-{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "width"), [("phone", 360), ("desktop", 1120)])
def test_page_fits_and_is_readable(browser: Browser, device: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 640}
    with open_page(browser, viewport=size, color_scheme=scheme) as page:
        assert page.evaluate(CONTRAST) >= 4.5
        call(page)
        expect(page.locator("#fact-remote")).to_have_text(EDGE_CANDIDATES)
        # A picture shows more than the first moment of it.
        least = 10 if "TURNOUT_SCREENSHOTS" in os.environ else 2
        expect(page.locator("#clock")).to_have_text(f"0:{least:02}", timeout=PATIENCE_MS)
        keep_screenshot(page, f"call-{device}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
        assert page.evaluate(CONTRAST) >= 4.5
        hang_up(page)


# The least contrast of a visible text with the ground it stands on (WCAG 2.2, 1.4.3).
CONTRAST = """
() => {
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const luminance = (colour) => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((byte) => {
            const part = byte / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const groundOf = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (colour !== "rgba(0, 0, 0, 0)") return colour;
        }
        throw new Error("no ground");
    };
    let least = Infinity;
    for (const element of document.querySelectorAll("body *")) {
        const hasText = [...element.childNodes].some(
            (node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (!hasText || !element.checkVisibility()) continue;
        if (element.closest("fieldset:disabled")) continue; // what cannot be used now is exempt
        const one = luminance(getComputedStyle(element).color);
        const two = luminance(groundOf(element));
        least = Math.min(least, (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05));
    }
    return least;
}
"""


def test_page_where_udp_is_blocked_says_so(lab: Lab, browser: Browser) -> None:
    size = {"width": 360, "height": 640}
    with udp_blocked(lab), open_page(browser, viewport=size, color_scheme="dark") as page:
        page.get_by_role("button", name="Call", exact=True).click()
        expect_failure(page, "No way through for UDP", "10.77.0.1:3478 or [fd77::1]:3478")
        expect(page.locator("#failure-advice")).to_contain_text("TURN server")
        assert page.evaluate(CONTRAST) >= 4.5
        keep_screenshot(page, "blocked-phone-dark")
    wait_until(lambda: sessions(lab) == [], "the session of the failed call is gone")


def test_page_that_failed_calls_again(lab: Lab, page: Page) -> None:
    with udp_blocked(lab):
        page.get_by_role("button", name="Call", exact=True).click()
        expect_failure(page, "No way through for UDP", "10.77.0.1:3478 or [fd77::1]:3478")
    page.get_by_role("button", name="Call again").click()
    expect(page.locator("#state-text")).to_have_text("Connected", timeout=PATIENCE_MS)
    expect(page.get_by_role("alert")).to_be_hidden()
    hang_up(page)


COUNT_CONFIGURATIONS = """
    window.configurations = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(configuration) {
            super(configuration);
            configurations.push(configuration.iceServers);
        }
    };
"""


def test_page_where_udp_is_blocked_tries_the_turn_server_of_the_edge(lab: Lab, page: Page) -> None:
    link = '<turn:10.77.0.1:9?transport=tcp>; rel="ice-server"; username="u"; credential="a, b"'

    def answer_with_link(route: Route) -> None:
        offer = route.request.post_data or ""
        answer = lab.in_client(lambda: whip.post_offer(PAGE_URL + "whip", offer))
        route.fulfill(
            status=201,
            headers={"Location": answer.resource, "Link": link},
            content_type="application/sdp",
            body=answer.sdp,
        )

    page.add_init_script(COUNT_CONFIGURATIONS)
    page.reload()
    page.route("**/whip", answer_with_link)
    with udp_blocked(lab):
        page.get_by_role("button", name="Call", exact=True).click()
        expect_failure(page, "No way through for UDP", "10.77.0.1:3478")
    expect(page.locator("#failure-advice")).to_contain_text("did not help either")
    server = {"urls": "turn:10.77.0.1:9?transport=tcp", "username": "u", "credential": "a, b"}
    assert page.evaluate("configurations") == [[], [server]]


def test_page_shows_the_edge_s_own_words_for_a_refusal(page: Page) -> None:
    problem = {"title": "No transceiver available", "detail": "none can take a session now"}
    page.route(
        "**/whip",
        lambda route: route.fulfill(
            status=503,
            headers={"Retry-After": "2"},
            content_type="application/problem+json",
            body=json.dumps(problem),
        ),
    )
    page.get_by_role("button", name="Call", exact=True).click()
    expect_failure(page, problem["title"], problem["detail"])
    expect(page.locator("#failure-advice")).to_have_text("Worth another try in 2 s.")


def test_page_asks_for_a_token_and_sends_it(lab: Lab, page: Page) -> None:
    sent: list[str | None] = []

    def ask_for_token(route: Route) -> None:
        sent.append(route.request.headers.get("authorization"))
        if sent[-1] is None:
            problem = json.dumps({"title": "Token needed", "detail": "send a bearer token"})
            route.fulfill(status=401, content_type="application/problem+json", body=problem)
        else:
            route.continue_()

    page.route("**/whip", ask_for_token)
    page.get_by_role("button", name="Call", exact=True).click()
    expect_failure(page, "Token needed", "send a bearer token")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.keyboard.type("open-sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#state-text")).to_have_text("Connected", timeout=PATIENCE_MS)
    hang_up(page)
    assert sent == [None, "Bearer open-sesame"]


def test_page_on_a_device_without_network_says_so(page: Page) -> None:
    page.context.set_offline(True)
    page.get_by_role("button", name="Call", exact=True).click()
    expect_failure(page, "This device is offline", "no network")


def test_page_whose_call_the_edge_ends_says_so(lab: Lab, page: Page) -> None:
    call(page)
    (session,) = sessions(lab)
    control = lab.edge.runtime / f"transceiver-{session['owner']}.sock"
    ask(control, "DELETE", f"/whip/{session['id']}")
    expect_failure(page, "The edge ended the call", "over on its side")


def test_page_whose_path_breaks_in_a_call_says_so(lab: Lab, page: Page) -> None:
    call(page)
    with udp_blocked(lab):
        expect(page.locator("#state-text")).to_contain_text("Interrupted", timeout=PATIENCE_MS)
        expect_failure(page, "The path broke", "The edge still has the call")
    wait_until(lambda: sessions(lab) == [], "the session is gone")


def test_page_whose_edge_is_killed_says_so(playwright: Playwright) -> None:
    with open_lab() as lab, open_browser(playwright, lab) as browser, ExitStack() as end:
        lab.edge.start(transceivers=1)
        page = end.enter_context(open_page(browser))
        call(page)
        lab.edge.kill_all()
        expect_failure(page, "The edge does not answer", PAGE_URL.rstrip("/"))
        assert lab.edge.run_command("down", "--instance", lab.edge.instance).returncode == 0


def test_page_calls_with_a_microphone_and_hears_it(playwright: Playwright, lab: Lab) -> None:
    with open_browser(playwright, lab, *MICROPHONE_FLAGS) as browser:
        with open_page(browser, permissions=["microphone"]) as page:
            expect(page.locator("#note")).to_be_hidden()
            expect(page.get_by_role("radio", name="Microphone")).to_be_checked()
            call(page)
            # The fake microphone beeps.
            expect(page.locator("#sound-value")).to_contain_text("Echo heard", timeout=PATIENCE_MS)
            hang_up(page)
        with open_page(browser, permissions=[]) as page:
            page.get_by_role("button", name="Call", exact=True).click()
            expect_failure(page, "Microphone denied", "did not let this page use a microphone")
            page.get_by_role("button", name="Call with the test tone").click()
            expect(page.locator("#state-text")).to_have_text("Connected", timeout=PATIENCE_MS)
            hang_up(page)


def test_page_on_a_device_without_microphone_says_so(playwright: Playwright, lab: Lab) -> None:
    with (
        open_browser(playwright, lab, MICROPHONE_FLAGS[0]) as browser,
        open_page(browser, permissions=["microphone"]) as page,
    ):
        page.get_by_role("button", name="Call", exact=True).click()
        expect_failure(page, "No microphone", "found no microphone")


@pytest.mark.parametrize("path", ["", "page/page.js", "page/page.css", "page/icon.svg"])
def test_page_is_served_with_a_policy_that_lets_nothing_else_in(lab: Lab, path: str) -> None:
    async def get() -> tuple[int, dict[str, str]]:
        async with aiohttp.ClientSession() as http, http.get(PAGE_URL + path) as reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}

    status, headers = lab.in_client(get)
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
