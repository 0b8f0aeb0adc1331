"""The transceiver process, `python -m turnout.transceiver`: one lane, one event loop.

Started and watched by the supervisor; knows nothing of it but SIGTERM.
"""

import argparse
import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
from ipaddress import ip_address
from pathlib import Path

from turnout.transceiver.app import AppFactory
from turnout.transceiver.control import Control, Identity
from turnout.transceiver.echo import Echo
from turnout.transceiver.worker import SESSIONS_MAX, Worker

logger = logging.getLogger(__name__)

APPS: dict[str, AppFactory] = {"echo": Echo}


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
    parser.add_argument("--app", choices=sorted(APPS), default="echo", help="what answers calls")
    parser.add_argument(
        "--sessions-max", type=int, default=SESSIONS_MAX, help="sessions at once, then 503"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no UDP port (0 to 65535)")
    return port


def _address(text: str) -> str:
    return str(ip_address(text))


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT; then every client hears BYE."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(options.vip, options.lane, APPS[options.app], sessions_max=options.sessions_max)
    loop.set_exception_handler(lambda _loop, context: _log_bug(worker, context))
    identity = Identity(options.slot, secrets.randbelow((1 << 63) - 1) + 1)
    worker.start()
    try:
        async with Control(worker, identity).serve(options.control):
            logger.info(
                "slot %d: %s on %s, lane %d",
                options.slot,
                options.app,
                ", ".join(options.vip),
                worker.lane,
            )
            # What lives now lives for ever: the collector need not look at it again.
            gc.freeze()
            await stop.wait()
            logger.info("slot %d: stopping, %d sessions", options.slot, len(worker.sessions))
            worker.close()
    finally:
        worker.close()


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
    logging.basicConfig(
        level=options.log_level.upper(),
        format=f"%(asctime)s transceiver-{options.slot} %(levelname)s %(message)s",
    )
    os.umask(0o077)  # the control socket is our user's alone
    try:
        asyncio.run(run(options))
    except OSError as error:
        # One line: what failed is the machine's state, not this program.
        sys.stderr.write(f"slot {options.slot} cannot start: {error}\n")
        return 1
    options.control.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
