"""A browser's call through the kernel path: Chromium, a tone out and the same tone back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

from interop.browser import CHROMIUM, open_browser
from system.lab import WHIP_URL, Lab, counted, wait_until
from system.namespaces import EDGE_ADDRESSES
from turnout.calling import whip
from turnout.calling.sdp import keep_family
from turnout.errors import CallError

PAGE = Path(__file__).with_name("call_page.html")
pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt: chromium)"),
]


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Iterator[Browser]:
    """Return a Chromium whose every socket is in the clients' namespace."""
    with sync_playwright() as playwright, open_browser(playwright, lab) as browser:
        yield browser


def open_page(browser: Browser, lab: Lab, family: int) -> Page:
    """Open the page at http://localhost, a secure context; /whip there leads to the edge.

    Candidates of the other family are taken out of the answer on its way.
    """

    def serve(route: Route) -> None:
        try:
            forward(route, route.request)
        except CallError as error:
            route.fulfill(status=502, body=str(error))

    def forward(route: Route, request: Request) -> None:
        _, _, resource = request.url.partition("/whip")
        if request.method == "DELETE":
            lab.in_client(lambda: whip.delete_session(WHIP_URL + resource))
            route.fulfill(status=200)
        elif request.method == "POST":
            offer = request.post_data or ""
            answer = lab.in_client(lambda: whip.post_offer(WHIP_URL, offer))
            route.fulfill(
                status=201,
                headers={"Location": "/whip" + answer.resource.removeprefix(WHIP_URL)},
                content_type="application/sdp",
                body=keep_family(answer.sdp, family),
            )
        else:
            route.fulfill(content_type="text/html", body=PAGE.read_text())

    page = browser.new_page()
    page.route("http://localhost/**", serve)
    page.goto("http://localhost/")
    return page


@pytest.mark.parametrize(("family", "tone"), [(4, 480), (6, 720)])
def test_chromium_call_is_steered_in_the_kernel_and_hears_its_tone(
    lab: Lab, browser: Browser, family: int, tone: int
) -> None:
    before = lab.edge.counters()
    page = open_page(browser, lab, family)
    call: dict[str, Any] = page.evaluate(
        "([url, hz, seconds]) => placeCall(url, hz, seconds)", ["/whip", tone, 4]
    )
    page.close()
    assert call["deleted"] == 200
    assert call["remote"] == {"address": EDGE_ADDRESSES[family], "port": 3478}
    assert call["received"] >= 100
    heard = call["heard"]
    # The first windows fall into the codec's and the jitter buffer's start.
    assert heard["tone"] >= 0.7 * heard["windows"], heard
    status = lab.edge.status()
    moved = counted(before, status["counters"])
    assert status["shared_port_datagrams"] == 0
    assert status["verdicts_add_up"] is True
    assert moved["steered__rtp"] >= 100
    assert moved["steered__dtls"] >= 2
    assert moved["returned__rewritten"] >= call["received"]
    wait_until(lambda: lab.edge.api("GET", "/sessions") == [], "the session is gone")
