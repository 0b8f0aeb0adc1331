"""The attacker's other process: offers, over as many connections as one client would not have.

Each connection posts the next offer when the last is answered: as fast as the door takes them.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from system.namespaces import EDGE_ADDRESSES
from traffic.worker import answer

CONNECTIONS = 16
_OFFER = Path(__file__).parents[1] / "vectors/offers/aiortc-audio.sdp"
_PATIENCE_SECONDS = 10.0


@dataclass(slots=True)
class Offered:
    """How many offers were answered, by status, and in how many seconds."""

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.answers.values()) / self.seconds


async def flood(port: int, seconds: float) -> Offered:
    """Post offers for so long."""
    offer = _OFFER.read_bytes()
    head = f"POST /whip HTTP/1.1\r\nHost: {EDGE_ADDRESSES[4]}:{port}\r\n"
    head += f"Content-Type: application/sdp\r\nContent-Length: {len(offer)}\r\n\r\n"
    request = head.encode() + offer
    offered = Offered()
    began = time.monotonic()

    async def keep_posting() -> None:
        while time.monotonic() < began + seconds:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await _post_until(began + seconds, port, request, offered)
            except (OSError, EOFError) as error:
                offered.answers[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(keep_posting())
    offered.seconds = time.monotonic() - began
    return offered


async def _post_until(end: float, port: int, request: bytes, offered: Offered) -> None:
    reader, writer = await asyncio.open_connection(EDGE_ADDRESSES[4], port)
    try:
        while time.monotonic() < end:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            _, _, rest = head.partition("content-length:")
            await reader.readexactly(int(rest.split()[0]) if rest else 0)
            offered.answers[head.split()[1]] += 1
    finally:
        writer.close()


def play(pipe: Connection) -> None:
    """Flood when the stage says so."""
    while True:
        _, port, seconds = pipe.recv()
        answer(pipe, asyncio.run(flood(port, seconds)))
