"""The system tests' laboratory: a client and an edge in namespaces of their own.

`open_lab` builds the namespaces and a bpffs, yields, takes everything down, and fails if the
product left anything behind. The conftest files make fixtures of it.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any, Protocol, TypeVar

import pytest

from system.edge_process import EdgeProcess
from system.namespaces import (
    CLIENT_ADDRESSES,
    EDGE_ADDRESSES,
    Namespaces,
    command,
    open_socket,
    run_in_namespace,
)
from turnout.calling import CallReport, place_call

SHARED_PORT = 3478
WHIP_URL = f"http://{EDGE_ADDRESSES[4]}:8080/whip"
T = TypeVar("T")
_numbers = itertools.count()


class Lab:
    """One edge's host, one network of clients, and the edge process."""

    def __init__(self, uid: str, directory: Path) -> None:
        self.directory = directory
        self.namespaces = Namespaces(uid)
        self.edge = EdgeProcess(
            self.namespaces, f"lab{uid}", directory / "bpf", directory / "edge.log"
        )

    def in_client(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in an event loop of its own in the clients' namespace."""
        return run_in_namespace(self.namespaces.client, lambda: asyncio.run(work()))

    def place_call(self, **options: Any) -> CallReport:
        """Place a call from the clients' namespace; options as of `turnout.calling.place_call`."""
        return self.in_client(lambda: place_call(WHIP_URL, **options))

    def client_socket(self, family: int = 4, *, which: int = 0, port: int = 0) -> socket:
        """Return a UDP socket of a client; `which` of its two addresses."""
        return open_socket(self.namespaces.client, CLIENT_ADDRESSES[family][which], port)

    def edge_socket(self, port: int, family: int = 4) -> socket:
        """Return a UDP socket on the edge's host, bound to the VIP."""
        return open_socket(self.namespaces.edge, EDGE_ADDRESSES[family], port)


class Standing(Protocol):
    """A laboratory of any shape: namespaces and an edge with a bpffs of its own."""

    edge: EdgeProcess

    @property
    def namespaces(self) -> Any:
        """What `build` and `remove` the namespaces."""


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Build a laboratory without a running edge; take it down however the test ends."""
    uid = f"{os.getpid():x}{next(_numbers)}"
    directory = Path(tempfile.mkdtemp(prefix=f"tn-{uid}-"))
    lab = Lab(uid, directory)
    with standing(lab, directory):
        yield lab


@contextmanager
def standing(lab: Standing, directory: Path) -> Iterator[None]:
    """Put up what the laboratory is made of, and take it and its directory away at the end."""
    try:
        lab.namespaces.build()
        lab.edge.bpffs.mkdir()
        command("mount", "-t", "bpf", "bpf", str(lab.edge.bpffs))
        try:
            yield
        finally:
            lab.edge.clean_up()
    finally:
        lab.namespaces.remove()
        if lab.edge.bpffs.is_mount():
            command("umount", str(lab.edge.bpffs))
        shutil.rmtree(directory)


@contextmanager
def open_running_lab(*flags: str, transceivers: int = 2) -> Iterator[Lab]:
    """Build a laboratory with a running edge, and require a clean end: exit 0, nothing left."""
    with open_lab() as lab:
        lab.edge.start(*flags, transceivers=transceivers)
        yield lab
        code = lab.edge.stop()
        assert (code, lab.edge.leftovers()) == (0, []), lab.edge.tail()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Poll until the condition holds; fails naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s still not so: {what}")
        time.sleep(0.02)


def counted(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return the counters that moved, by how much."""
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}
