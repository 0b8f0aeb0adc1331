"""Runs QEMU on an image: streams what the guest's steps print, collects what they report.

The guest has two serial ports: the first is the kernel's console and goes to a file, the second
is what the steps print. A line of it that starts with MARK is a report (see guest.py), not shown.
Emulated (TCG): the stock kernel hangs on some hosts' KVM, and so every host gets the same machine.
Called by __main__.py.
"""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vm.guest import MARK
from vm.image import Image
from vm.packages import VmError

CPUS = 2
MEMORY_MIB = 2048
CARDS = ("eth0", "eth1")  # as the guest names them, in this order


def qemu_command(image: Image, console: Path) -> list[str]:
    """Return the command line that boots `image`; disks are left as they are."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", str(CPUS), "-m", str(MEMORY_MIB), "-no-reboot"]
    command += ["-kernel", str(image.vmlinuz), "-initrd", str(image.initramfs)]
    command += ["-append", "console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on"]
    for disk in image.disks:
        command += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
    # Two cards on one hub: the edge's and its client's. It leads nowhere else, of which QEMU warns.
    # A port of a hub has one queue: enough for native XDP whose programs only pass and drop.
    for card in CARDS:
        command += ["-netdev", f"hubport,id={card},hubid=0"]
        command += ["-device", f"virtio-net-pci,netdev={card}"]
    return [*command, "-serial", f"file:{console}", "-serial", "stdio"]


class Output:
    """Shows the guest's output as it comes and takes the reports out of it."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self._line = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a line that may become a report is held until it is whole."""
        for piece in data.replace(b"\r", b"").splitlines(keepends=True):
            before, self._line = self._line, self._line + piece
            mark = MARK.encode()
            if self._line.startswith(mark):
                if self._line.endswith(b"\n"):
                    self.reports.append(json.loads(self._line[len(mark) :]))
            elif not mark.startswith(self._line[: len(mark)]):
                held = before if mark.startswith(before) else b""
                sys.stdout.buffer.write(held + piece)
                sys.stdout.buffer.flush()
            if self._line.endswith(b"\n"):
                self._line = b""


def run_machine(image: Image, console: Path, timeout_seconds: float) -> list[dict[str, Any]]:
    """Boot `image`, wait for its end and return the guest's reports.

    Raises VmError when the time is over or when the guest ended without its last report.
    """
    deadline = time.monotonic() + timeout_seconds
    output = Output()
    process = subprocess.Popen(
        qemu_command(image, console),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        stream = process.stdout.fileno()
        while True:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise VmError(f"no end after {timeout_seconds:.0f} s{tail_of(console)}")
            data = os.read(stream, 65536)
            if not data:
                break
            output.feed(data)
    finally:
        process.kill()
        process.wait()
    if not output.reports or output.reports[-1].get("step") != "end":
        raise VmError(f"the guest stopped before its end{tail_of(console)}")
    return output.reports


def tail_of(console: Path) -> str:
    """Return the last lines of the kernel's console for an error message."""
    if not console.exists():
        return ""
    lines = console.read_text(errors="replace").splitlines()[-25:]
    return "\nThe end of its console:\n" + "\n".join(lines)
