"""The way out and in at sizes beyond one packet: GSO and fragments, checksum offload on and off."""

import os
import socket

import pytest

from system.lab import Lab, wait_until
from system.namespaces import EDGE_ADDRESSES, INTERFACE, command
from system.raw import raw_client, raw_owner

pytestmark = pytest.mark.privileged

UDP_SEGMENT = 103  # linux/udp.h
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture(params=["on", "off"])
def offload(lab: Lab, request: pytest.FixtureRequest) -> str:
    """Return whether the interface completes checksums; `off` is as a plain network card."""
    for name in (lab.namespaces.edge, lab.namespaces.client):
        command("ip", "netns", "exec", name, "ethtool", "-K", INTERFACE, "tx", request.param)
    return str(request.param)


def checksum_errors(namespace: str) -> list[str]:
    """Return the lines of /proc/net/snmp* that count datagrams with a wrong checksum."""
    text = command("ip", "netns", "exec", namespace, "cat", "/proc/net/snmp", "/proc/net/snmp6")
    heads, values = [line.split() for line in text.splitlines() if line.startswith("Udp:")]
    return [
        values[heads.index("InCsumErrors")],
        *[line for line in text.splitlines() if line.startswith("Udp6InCsumErrors")],
    ]


@FAMILIES
@pytest.mark.usefixtures("offload")
def test_gso_reply_arrives_whole_from_the_shared_port(lab: Lab, family: int) -> None:
    content = [bytes([0x80]) + os.urandom(999) for _ in range(5)]
    with raw_owner(lab, 20500) as owner, raw_client(lab, family) as client:
        before = checksum_errors(lab.namespaces.client)
        owner.sockets[family].setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)

        owner.send(b"".join(content), client.address)

        received = [client.receive() for _ in content]
        assert [datagram for datagram, _ in received] == content
        assert {source for _, source in received} == {(EDGE_ADDRESSES[family], 3478)}
        assert checksum_errors(lab.namespaces.client) == before


@FAMILIES
@pytest.mark.usefixtures("offload")
def test_fragmented_reply_arrives_whole_from_the_shared_port(lab: Lab, family: int) -> None:
    content = bytes([0x80]) + os.urandom(3999)
    with raw_owner(lab, 20500) as owner, raw_client(lab, family) as client:
        owner.send(content, client.address)

        datagram, source = client.socket.recvfrom(8192)
        assert (datagram, source[:2]) == (content, (EDGE_ADDRESSES[family], 3478))


@FAMILIES
def test_fragmented_request_is_left_to_the_shared_port_and_counted(lab: Lab, family: int) -> None:
    before = lab.edge.status()
    with raw_client(lab, family) as client:
        client.send(bytes([0x80]) + os.urandom(3999))
    wanted = before["shared_port_datagrams"] + 1
    wait_until(lambda: lab.edge.status()["shared_port_datagrams"] == wanted, "it arrived there")
    after = lab.edge.status()
    moved = after["counters"]["pass__fragment"] - before["counters"]["pass__fragment"]
    assert moved == 1
    assert after["verdicts_add_up"]
