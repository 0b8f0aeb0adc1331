"""The doors of an edge: what is taken says whose flag gives another, what comes is counted."""

import asyncio
import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from turnout.doors import discard_datagrams, open_listener, open_shared_ports, wait_for_vips
from turnout.errors import TurnoutError
from turnout.metrics import Tally
from turnout.settings import Endpoint, Settings
from unit.patience import until

LOOPBACK = ip_address("127.0.0.1")
# RFC 5737: no host has it.
NOBODYS = ip_address("192.0.2.222")


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_open_shared_ports_port_taken_names_vip_port_and_flag() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, ExitStack() as doors:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = Settings(vips=(LOOPBACK,), local=True, shared_port=port)

        with pytest.raises(TurnoutError, match=f"vip 127.0.0.1: UDP port {port} .* --shared-port"):
            open_shared_ports(settings, doors)


def test_wait_for_vips_address_of_nobody_here_says_so() -> None:
    with pytest.raises(TurnoutError, match=r"vip 192.0.2.222: no interface of this host"):
        wait_for_vips(Settings(vips=(NOBODYS,)))


def test_open_listener_port_taken_names_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as doors:
        port = taken.getsockname()[1]

        with pytest.raises(TurnoutError, match=f"--http 127.0.0.1:{port}: another process"):
            open_listener("--http", Endpoint("127.0.0.1", port), doors)


def test_open_listener_address_of_nobody_here_says_so() -> None:
    with ExitStack() as doors, pytest.raises(TurnoutError, match=r"--metrics 192\.0\.2\.222:9478"):
        open_listener("--metrics", Endpoint("192.0.2.222", 9478), doors)


async def test_discard_datagrams_counts_what_arrives() -> None:
    tally = Tally()
    with ExitStack() as doors:
        settings = Settings(vips=(LOOPBACK,), local=True, shared_port=free_udp_port())
        sockets = open_shared_ports(settings, doors)
        task = asyncio.create_task(discard_datagrams(sockets, tally))
        client = doors.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for size in (0, 1, 1400):
            client.sendto(bytes(size), ("127.0.0.1", settings.shared_port))
        await until(lambda: tally.shared_port_datagrams == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert tally.shared_port_datagrams == 3
