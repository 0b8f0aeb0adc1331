"""The transceiver process, `python -m turnout.transceiver`: one lane, one event loop.

Started and watched by the supervisor; knows nothing of it but SIGTERM.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from turnout.logs import LOG_LEVELS, set_up_logs
from turnout.notify import serving
from turnout.privileges import become
from turnout.transceiver.app import AppFactory
from turnout.transceiver.bridge import Backend, Bridges
from turnout.transceiver.control import Control, Identity, listen_at
from turnout.transceiver.echo import Echo
from turnout.transceiver.handover import HandOvers
from turnout.transceiver.handshakes import HANDSHAKES_MAX
from turnout.transceiver.webhook import Webhook
from turnout.transceiver.worker import SESSIONS_MAX, Worker

logger = logging.getLogger(__name__)

# What is not told by then is lost: the supervisor waits 5 s before it kills.
WEBHOOK_PATIENCE_S = 2.0


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exits with 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        prog="turnout transceiver", description="Terminate WebRTC sessions on one lane."
    )
    parser.add_argument("--slot", type=int, required=True, help="this transceiver's slot")
    parser.add_argument("--lane", type=_port, required=True, help="UDP port to listen on")
    parser.add_argument(
        "--vip", action="append", type=_address, required=True, help="local address; repeatable"
    )
    parser.add_argument("--control", type=Path, required=True, help="path of the UNIX socket")
    parser.add_argument(
        "--user",
        type=_user,
        metavar="UID:GID",
        help="whom to become when sockets are open; without it whoever starts this is kept",
    )
    parser.add_argument(
        "--app", type=_app, default="echo", help="what answers calls: echo, or rtp://HOST:PORT"
    )
    parser.add_argument("--webhook", default="", help="URL that hears of the bridge's calls")
    parser.add_argument(
        "--sessions-max", type=int, default=SESSIONS_MAX, help="sessions at once, then 503"
    )
    parser.add_argument(
        "--handshakes",
        type=_at_least_one,
        default=HANDSHAKES_MAX,
        help="DTLS handshakes at once, then a ClientHello is dropped",
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    parser.add_argument("--log-json", action="store_true", help="log JSON, one object a line")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no UDP port (0 to 65535)")
    return port


def _user(text: str) -> tuple[int, int]:
    user, group = (int(part) for part in text.split(":"))
    if user < 1 or group < 1:
        raise argparse.ArgumentTypeError(f"{text}: a transceiver is not to be root")
    return user, group


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} would let nobody in: give 1 or more")
    return number


def _address(text: str) -> str:
    return str(ip_address(text))


def _app(text: str) -> str:
    split = urlsplit(text)
    if text != "echo" and not (split.scheme == "rtp" and split.hostname and split.port):
        raise argparse.ArgumentTypeError(f"{text!r}: give echo or rtp://HOST:PORT")
    return text


def _build_app(name: str, webhook: Webhook | None) -> AppFactory:
    """Return what makes the application of each call; raises OSError for an unknown host."""
    if name == "echo":
        return Echo
    return Bridges(Backend.find(name), webhook.announce if webhook else lambda _call: None)


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; then every client hears BYE."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    webhook = Webhook(options.webhook) if options.webhook else None
    app = _build_app(options.app, webhook)
    worker = Worker(
        options.vip,
        options.lane,
        app,
        sessions_max=options.sessions_max,
        handshakes_max=options.handshakes,
    )
    loop.set_exception_handler(lambda _loop, context: _log_bug(worker, context))
    identity = Identity(options.slot, secrets.randbelow((1 << 63) - 1) + 1)
    hand_overs = HandOvers(worker, options.app)
    listener = listen_at(options.control)
    if options.user is not None:
        # Nothing has been read from a socket yet; all that takes privilege is open.
        become(*options.user)
    worker.start()
    try:
        async with (
            Control(worker, identity, hand_overs).serve(listener),
            _announcing(webhook, worker),
            serving(lambda: f"lane {worker.lane}, {len(worker.sessions)} sessions"),
        ):
            logger.info(
                "slot %d: %s on %s, lane %d",
                options.slot,
                options.app,
                ", ".join(options.vip),
                worker.lane,
            )
            # What lives now lives for ever: to look for garbage in it takes 10 ms, in which no call
            # has its turn. Sessions leave none.
            gc.collect()
            gc.freeze()
            await stop.wait()
            logger.info("slot %d: stopping, %d sessions", options.slot, len(worker.sessions))
            worker.close()
    finally:
        hand_overs.close()
        worker.close()


@asynccontextmanager
async def _announcing(webhook: Webhook | None, worker: Worker) -> AsyncIterator[None]:
    """Run the webhook's task; at the end it gets a moment for what the last calls left."""
    if webhook is None:
        yield
        return
    webhook.counters = worker.counters
    async with asyncio.TaskGroup() as group:
        task = group.create_task(webhook.run(), name="webhook")
        try:
            yield
            await webhook.drain(WEBHOOK_PATIENCE_S)
        finally:
            task.cancel()


def _log_bug(worker: Worker, context: dict[str, object]) -> None:
    """Count and log what a callback raised: one datagram or timer is lost, other calls go on."""
    worker.counters.internal_errors += 1
    error = context.get("exception")
    logger.error(
        "internal error: %s",
        context.get("message"),
        exc_info=error if isinstance(error, BaseException) else None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the transceiver; returns the exit status."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    process = f"transceiver-{options.slot}"
    set_up_logs(process, options.log_level, as_json=options.log_json)
    os.umask(0o077)  # the control socket is our user's alone
    try:
        asyncio.run(run(options))
    except OSError as error:
        # One line: what failed is the machine's state, not this program.
        logger.error("slot %d cannot start: %s", options.slot, error)  # noqa: TRY400
        return 1
    with contextlib.suppress(PermissionError):  # as another user; then its successor replaces it
        options.control.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
