"""The webhook against a real HTTP server that fails as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from turnout.transceiver import webhook as module
from turnout.transceiver.webhook import Webhook


@dataclass
class Service:
    """An operator's service; `failures` are the statuses of its next answers."""

    failures: list[int] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        if self.failures:
            return web.Response(status=self.failures.pop(0))
        self.heard.append(await request.json())
        return web.Response(status=204)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_post("/calls", service.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    service.url = f"http://{host}:{port}/calls"
    yield service
    await runner.cleanup()


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Webhook]:
    webhook = Webhook(url)
    task = asyncio.create_task(webhook.run())
    yield webhook
    await webhook.drain(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01))


async def test_webhook_tells_in_order(service: Service) -> None:
    async with running(service.url) as webhook:
        for number in range(20):
            webhook.announce({"event": "call_started", "call": str(number)})
    assert [told["call"] for told in service.heard] == [str(number) for number in range(20)]
    assert webhook.counters.webhook__told == 20


async def test_webhook_whose_service_stumbles_tries_again_and_keeps_the_order(
    service: Service,
) -> None:
    service.failures = [503, 500]
    async with running(service.url) as webhook:
        webhook.announce({"event": "call_started", "call": "a"})
        webhook.announce({"event": "call_ended", "call": "a"})
    assert [told["event"] for told in service.heard] == ["call_started", "call_ended"]
    assert webhook.counters.webhook__lost == 0


async def test_webhook_whose_service_is_away_counts_and_says_what_is_lost(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.failures = [404, 404, 404]
    async with running(service.url) as webhook:
        webhook.announce({"event": "call_started", "call": "a"})
        webhook.announce({"event": "call_started", "call": "b"})
    assert [told["call"] for told in service.heard] == ["b"]
    assert (webhook.counters.webhook__told, webhook.counters.webhook__lost) == (1, 1)
    assert "call_started of call a is not told: it answered 404" in caplog.text


async def test_webhook_with_a_full_queue_loses_what_comes_and_not_what_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MOST", 2)
    webhook = Webhook(service.url)
    for number in range(3):
        webhook.announce({"event": "call_started", "call": str(number)})
    assert webhook.counters.webhook__lost == 1
    task = asyncio.create_task(webhook.run())
    await webhook.drain(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [told["call"] for told in service.heard] == ["0", "1"]
