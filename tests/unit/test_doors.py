"""The doors of an edge: what is taken says whose flag gives another, what comes is counted."""

import asyncio
import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from turnout.doors import SharedPorts, open_listener, wait_for_vips
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


def test_shared_ports_port_taken_names_vip_port_and_flag() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        with (
            SharedPorts(port, Tally()) as shared,
            pytest.raises(TurnoutError, match=f"vip 127.0.0.1: UDP port {port} .* --shared-port"),
        ):
            shared.open(LOOPBACK)


@pytest.mark.parametrize("address", ["192.0.2.222", "2001:db8::222"])
def test_shared_ports_address_that_is_not_there_is_ours_all_the_same(address: str) -> None:
    port = free_udp_port()
    with SharedPorts(port, Tally()) as shared:
        shared.open(ip_address(address))
        shared.open(ip_address(address))

        assert list(shared.vips) == [ip_address(address)]
        with SharedPorts(port, Tally()) as second, pytest.raises(TurnoutError, match="is taken"):
            second.open(ip_address(address))


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


@pytest.mark.parametrize("opened", ["before", "while it runs"])
async def test_shared_ports_discard_counts_what_arrives(opened: str) -> None:
    tally, port = Tally(), free_udp_port()
    with (
        SharedPorts(port, tally) as shared,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        if opened == "before":
            shared.open(LOOPBACK)
        task = asyncio.create_task(shared.discard())
        await asyncio.sleep(0)
        shared.open(LOOPBACK)
        for size in (0, 1, 1400):
            client.sendto(bytes(size), ("127.0.0.1", port))
        await until(lambda: tally.shared_port_datagrams == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert tally.shared_port_datagrams == 3


async def test_shared_ports_close_gives_the_port_back() -> None:
    port = free_udp_port()
    with SharedPorts(port, Tally()) as shared:
        shared.open(LOOPBACK)
        shared.close(LOOPBACK)

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
