"""The host that the edge runs on must not notice it: its traffic, its firewall, its programs."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from system.lab import Lab, counted
from system.namespaces import (
    CLIENT_ADDRESSES,
    EDGE_ADDRESSES,
    INTERFACE,
    command,
    open_socket,
    run_in_namespace,
)
from system.stranger import NAME, attach_stranger

pytestmark = pytest.mark.privileged

DROP_ALL_BUT_LANES = """
table inet host {
    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        ct state invalid drop
        meta l4proto ipv6-icmp accept
        tcp dport 8080 accept
        udp dport 20000-20999 accept
    }
}
"""
TALK = [f"line {number}\n".encode() * 300 for number in range(40)]  # 100 kB, as a login writes


class Echo:
    """Echoes TCP streams and UDP datagrams on a port of the edge's host."""

    def __init__(self, lab: Lab, family: int, port: int) -> None:
        namespace, address = lab.namespaces.edge, EDGE_ADDRESSES[family]
        self.address = (address, port)
        self._listener = open_socket(namespace, address, port, socket.SOCK_STREAM)
        self._listener.listen()
        self._datagrams = open_socket(namespace, address, port)
        for serve in (self._serve_stream, self._serve_datagrams):
            threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        # close() alone would leave the threads in accept() and recvfrom().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._datagrams.sendto(b"", self.address)

    def _serve_stream(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # closed before a client came
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def _serve_datagrams(self) -> None:
        self._datagrams.settimeout(None)
        with self._datagrams:
            while True:
                datagram, source = self._datagrams.recvfrom(65536)
                if not datagram:
                    return
                self._datagrams.sendto(datagram, source)


@contextmanager
def echo_with_clients(
    lab: Lab, family: int
) -> Iterator[tuple[socket.socket, socket.socket, tuple[str, int]]]:
    """Open an echo server on port 2222 and a connected TCP and a UDP client of it."""
    client, address = lab.namespaces.client, CLIENT_ADDRESSES[family][0]
    with (
        closing(Echo(lab, family, 2222)) as echo,
        open_socket(client, address, kind=socket.SOCK_STREAM) as stream,
        open_socket(client, address) as datagrams,
    ):
        stream.connect(echo.address)
        yield stream, datagrams, echo.address


def exchange(stream: socket.socket, datagrams: socket.socket, server: tuple[str, int]) -> None:
    """Talk over both and require every byte back. 4,000 bytes make fragments."""
    for line in TALK:
        stream.sendall(line)
        assert hashlib.sha256(_read(stream, len(line))).digest() == hashlib.sha256(line).digest()
    for size in (1, 100, 1200, 1472, 4000):
        for number in range(20):
            datagram = number.to_bytes(1, "big") * size
            datagrams.sendto(datagram, server)
            assert datagrams.recv(65536) == datagram


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(65536)
        assert part, "the connection was closed"
        data += part
    return data


def test_host_traffic_is_the_same_before_during_and_after_attach(bare_lab: Lab) -> None:
    with (
        echo_with_clients(bare_lab, 4) as over_v4,
        echo_with_clients(bare_lab, 6) as over_v6,
    ):
        exchange(*over_v4)
        exchange(*over_v6)
        bare_lab.edge.start(transceivers=1)
        before = bare_lab.edge.counters()
        # The connections were there before the programs, as the administrator's SSH is.
        exchange(*over_v4)
        exchange(*over_v6)
        assert counted(before, bare_lab.edge.counters()) == {}
        assert bare_lab.edge.stop() == 0
        assert bare_lab.edge.leftovers() == []
        exchange(*over_v4)
        exchange(*over_v6)


def test_call_on_a_default_drop_host_with_open_lanes_works(lab: Lab) -> None:
    namespace = f"--net=/run/netns/{lab.namespaces.edge}"
    command("nsenter", namespace, "nft", "-f", "-", stdin=DROP_ALL_BUT_LANES)
    try:
        for family in (4, 6):
            report = lab.place_call(duration=1.5, family=family)
            assert report.error is None
    finally:
        command("nsenter", namespace, "nft", "flush", "ruleset")


def test_doctor_on_a_default_drop_host_names_the_closed_lanes(lab: Lab) -> None:
    namespace = f"--net=/run/netns/{lab.namespaces.edge}"
    rules = DROP_ALL_BUT_LANES.replace("udp dport 20000-20999", "udp dport 3478")
    command("nsenter", namespace, "nft", "-f", "-", stdin=rules)
    try:
        done = lab.edge.run_command("doctor", "--instance", lab.edge.instance)
    finally:
        command("nsenter", namespace, "nft", "flush", "ruleset")
    assert done.returncode == 1
    assert "20000-20999" in done.stdout


def test_foreign_program_in_place_is_refused_by_name_and_stays(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    run_in_namespace(bare_lab.namespaces.edge, lambda: attach_stranger(INTERFACE))
    foreign = bare_lab.namespaces.edge_link()["xdp"]["prog"]["id"]
    done = edge.run_command(*edge.run_arguments(transceivers=1))
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert INTERFACE in said
    assert NAME in said or f"id {foreign}" in said, said
    assert bare_lab.namespaces.edge_link()["xdp"]["prog"]["id"] == foreign
    left = [one for one in edge.leftovers() if not one.startswith("XDP program")]
    assert left == []


def test_dry_run_prints_and_changes_nothing(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    done = edge.run_command(*edge.run_arguments("--dry-run"))
    assert done.returncode == 0
    for word in (INTERFACE, str(edge.bpffs), "20000-20999", "3478"):
        assert word in done.stdout
    assert edge.leftovers() == []


def test_second_edge_of_the_same_instance_is_refused_and_the_first_lives(lab: Lab) -> None:
    pids = lab.edge.pids()
    done = lab.edge.run_command(*lab.edge.run_arguments())
    assert done.returncode == 1
    assert f"instance {lab.edge.instance} already runs" in done.stderr
    assert lab.edge.pids() == pids
