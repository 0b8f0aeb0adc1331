"""A call that a real Chromium has with the edge's own page, beside those of aiortc."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Page, expect, sync_playwright

from interop.browser import CHROMIUM, Place, open_browser
from system.namespaces import EDGE_ADDRESSES

PAGE_URL = f"http://{EDGE_ADDRESSES[4]}:8080/"
_PATIENCE_MS = 60_000
_PACKETS = re.compile(r"(\d+) sent, (\d+) back, (-?\d+) lost")


@dataclass(frozen=True, slots=True)
class Figures:
    """What the page shows of its call."""

    sent: int
    lost_back: int  # as RTP counts
    is_up: bool


class ChromiumCall:
    """The page and its one call."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def place(self) -> None:
        """Call, and wait until packets are counted."""
        self._page.goto(PAGE_URL)
        self._page.get_by_role("button", name="Call", exact=True).click()
        expect(self._page.locator("#state-text")).to_have_text("Connected", timeout=_PATIENCE_MS)
        packets = self._page.locator("#fact-packets")
        expect(packets).to_have_text(_PACKETS, timeout=_PATIENCE_MS)

    def figures(self) -> Figures:
        """Return what the page shows; it looks once a second."""
        shown = _PACKETS.fullmatch(self._page.locator("#fact-packets").inner_text())
        state = self._page.locator("#state-text").inner_text()
        if shown is None:
            return Figures(0, 0, is_up=False)
        sent, _, lost = map(int, shown.groups())
        return Figures(sent, lost, is_up=state == "Connected")


@contextmanager
def open_chromium(place: Place) -> Iterator[ChromiumCall | None]:
    """Start the browser; None where it is not installed."""
    if CHROMIUM is None:
        yield None
        return
    with sync_playwright() as playwright, open_browser(playwright, place) as browser:
        yield ChromiumCall(browser.new_page())
