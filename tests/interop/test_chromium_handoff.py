"""Chromium's call goes from one transceiver to the other and back while it talks."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from interop.browser import CHROMIUM, open_browser
from interop.test_chromium_call import open_page
from system.lab import Lab, wait_until
from turnout.client import Client

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt: chromium)"),
]

MOVES = 4


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Iterator[Browser]:
    """Return a Chromium whose every socket is in the clients' namespace."""
    with sync_playwright() as playwright, open_browser(playwright, lab) as browser:
        yield browser


def hand_off(lab: Lab) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with Client(lab.edge.runtime / "api.sock") as api:
            (session,) = await api.sessions()
            return await api.hand_off(session["owner"])

    # Playwright's own loop runs in this thread.
    return lab.in_client(ask)


def packets_in(lab: Lab) -> int:
    (session,) = lab.edge.api("GET", "/sessions")
    sessions = lab.edge.transceiver(session["owner"])["sessions"]
    return int(sessions[0]["packets_in"]) if sessions else 0


def wait(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Poll; the page's requests are answered only while Playwright is called."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"after 20 s still not so: {what}"
        page.wait_for_timeout(20)


def test_chromium_call_is_handed_over_and_loses_nothing(lab: Lab, browser: Browser) -> None:
    page = open_page(browser, lab, 4)
    page.evaluate("() => { window.done = placeCall('/whip', 560, 8); }")
    wait(page, lambda: lab.edge.api("GET", "/sessions") != [], "the call")
    for _ in range(MOVES):
        heard = packets_in(lab)
        wait(page, lambda: packets_in(lab) >= heard + 50, "a second of media")  # noqa: B023
        report = hand_off(lab)
        assert (report["moved"], report["stayed"], report["lost"]) == (1, [], [])
    (session,) = lab.edge.api("GET", "/sessions")
    (told,) = lab.edge.transceiver(session["owner"])["sessions"]
    call: dict[str, Any] = page.evaluate("() => window.done")
    page.close()
    assert call["deleted"] == 200
    assert call["lost"] == told["packets_lost"] == 0
    assert call["received"] >= 300
    heard_tone = call["heard"]
    assert heard_tone["tone"] >= 0.7 * heard_tone["windows"], heard_tone
    counters = [lab.edge.transceiver(slot)["counters"] for slot in (0, 1)]
    assert sum(one["sessions_taken"] for one in counters) == MOVES
    assert sum(one["ice_restarts"] for one in counters) == 0
    wait_until(lambda: lab.edge.api("GET", "/sessions") == [], "the session is gone")
