"""Ends a child that runs and does not answer any more, so that another takes its place.

The kernel steers on meanwhile. New calls avoid a transceiver after 3 s of silence
(signaling/upstream.py), and one that goes on before it is ended here keeps its calls. The
supervisor runs one `end_when_stuck` for each child with a door of its own.
"""

import asyncio
import logging
import signal
import socket
from pathlib import Path

from turnout.children import Child

log = logging.getLogger(__name__)

# Clients give a call up after 16 s without an answer; and to work for 2,000 sessions at once, or to
# collect garbage, takes seconds at most.
STUCK_SECONDS = 10
LOOK_PAUSE_S = 2.0
# Whatever comes back shows that its event loop turns; no path of ours has that name.
_QUESTION = b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def end_when_stuck(child: Child, door: Path) -> None:
    """Ask at the door for ever; kill the process that took a question and never answered."""
    while True:
        await asyncio.sleep(LOOK_PAUSE_S)
        asked = child.pid
        if asked is None or await answers(door) or child.pid != asked:
            continue
        log.error("%s hangs: it has not answered for %d s; killed", child.name, STUCK_SECONDS)
        child.send_signal(signal.SIGKILL)


async def answers(door: Path) -> bool:
    """Tell whether who listens there answers; True too where nobody does, or not yet."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asker:
        is_asked = False
        # Second by second: a supervisor that was itself held up finds the answer on its first turn.
        for _ in range(STUCK_SECONDS):
            try:
                is_asked = is_asked or _ask(asker, door)
                if not is_asked:
                    await asyncio.sleep(1.0)
                    continue
                async with asyncio.timeout(1.0):
                    await loop.sock_recv(asker, 1)
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True  # it is starting, or about to be started again, or has ended meanwhile
    return False


def _ask(asker: socket.socket, door: Path) -> bool:
    """Ask. False if those who wait at the door already are as many as it holds.

    Not left to asyncio, which takes a connection for made that the kernel has put off.
    """
    try:
        asker.connect(str(door))
    except BlockingIOError:
        return False
    asker.send(_QUESTION)
    return True
