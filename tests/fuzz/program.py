"""The programs under BPF_PROG_TEST_RUN, as fast as Python gets at them: some 10 us a packet.

Compiled with a clock that the test sets. Buffers are made once; the flow table is read from memory
that is shared with the kernel. The calling process must stay on one CPU: the meters are per CPU.
Used by pair.py.
"""

import ctypes
import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from turnout.kernel import bpf, libbpf
from turnout.kernel.btf import Opaque, Scalar, Struct
from turnout.kernel.compile import Compiled, compile_programs, flow_buckets
from turnout.kernel.maps import KernelMap, codecs, possible_cpus

FLOWS_MAX = 8000  # more buckets than any small world uses
FRAME_MAX = 16384
XDP_PASS, TC_ACT_UNSPEC = 2, -1
# struct __sk_buff, in linux/bpf.h.
SK_BUFF_BYTES, SK_BUFF_GSO_SEGS, SK_BUFF_GSO_SIZE = 192, 164, 176
SWEEP_BUCKETS = 16
ENTRY_BYTES = 64


def compile_for_test(source: str | None = None) -> Compiled:
    """Compile with the clock in a map."""
    return compile_programs(FLOWS_MAX, 4096, source, ["TURNOUT_TEST_CLOCK"])


def stay_on_cpu(number: int) -> None:
    """Keep this process on one of the CPUs it may use."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})


@contextmanager
def one_cpu() -> Iterator[None]:
    """Stay on one CPU for as long as it lasts."""
    allowed = os.sched_getaffinity(0)
    stay_on_cpu(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Run:
    """One program, its frame and its context."""

    def __init__(self, program: bpf.Fd, context_bytes: int) -> None:
        self._program = program
        self._in = ctypes.create_string_buffer(FRAME_MAX)
        self._out = ctypes.create_string_buffer(FRAME_MAX)
        self._in_at, self._out_at = ctypes.addressof(self._in), ctypes.addressof(self._out)
        self.context = ctypes.create_string_buffer(context_bytes)
        self._call = libbpf.library().bpf_prog_test_run_opts
        self._options = libbpf.RunOptions(
            sz=ctypes.sizeof(libbpf.RunOptions),
            data_in=self._in_at,
            data_out=self._out_at,
            ctx_in=ctypes.addressof(self.context),
            ctx_size_in=context_bytes,
        )
        self._reference = ctypes.byref(self._options)

    def __call__(self, frame: bytes, repeat: int = 1) -> tuple[int, bytes]:
        """Return the verdict and the frame after it."""
        options = self._options
        ctypes.memmove(self._in_at, frame, len(frame))
        options.data_size_in = len(frame)
        options.data_size_out = FRAME_MAX
        options.repeat = repeat
        failed = self._call(self._program, self._reference)
        if failed:
            raise OSError(-failed, f"test run of {len(frame)} bytes: {os.strerror(-failed)}")
        return options.retval, ctypes.string_at(self._out_at, options.data_size_out)

    def close(self) -> None:
        """Unload the program."""
        self._program.close()


class Program:
    """The three programs and their maps."""

    def __init__(self, compiled: Compiled) -> None:
        self.fds = dict(compiled.maps)
        names = ("settings", "lanes", "owners", "sessions", "owner_flows", "owner_counters")
        self.maps = {name: KernelMap(os.dup(self.fds[name])) for name in names}
        self.counter_names = KernelMapFields(self.fds["counters"]).names
        self.ingress = Run(compiled.load("ingress"), 24)
        self.egress = Run(compiled.load("egress"), SK_BUFF_BYTES)
        self._sweep = Run(compiled.load("sweep"), 24)
        self.buckets = flow_buckets(FLOWS_MAX)
        self.details_bytes = bpf.map_info(self.fds["flow_details"]).value_size
        self.flows = bpf.mapped(self.fds["flows"], self.buckets * ENTRY_BYTES, is_writable=True)
        self.details = bpf.mapped(
            self.fds["flow_details"], self.buckets * 7 * self.details_bytes, is_writable=True
        )
        self.details_format = packing(codecs(bpf.map_info(self.fds["flow_details"]))[1])
        self._cpu = next(iter(os.sched_getaffinity(0)))
        self._stride = 8 * len(self.counter_names)
        self._counters = ctypes.create_string_buffer(self._stride * possible_cpus())
        self._lookup = libbpf.library().bpf_map_lookup_elem

    def close(self) -> None:
        """Unload and free everything but bcc's own descriptors."""
        for run in (self.ingress, self.egress, self._sweep):
            run.close()
        for table in self.maps.values():
            table.close()
        self.flows.close()
        self.details.close()

    def receive(self, frame: bytes, interface: int) -> tuple[int, bytes]:
        """Run the XDP program."""
        struct.pack_into("<6I", self.ingress.context, 0, 0, len(frame), 0, interface, 0, 0)
        return self.ingress(frame)

    def send(self, frame: bytes, gso_size: int) -> tuple[int, bytes]:
        """Run the TC program; `gso_size` 0: the frame leaves as it is."""
        segments = -(-len(frame) // gso_size) if gso_size else 0
        struct.pack_into("<I", self.egress.context, SK_BUFF_GSO_SEGS, segments)
        struct.pack_into("<I", self.egress.context, SK_BUFF_GSO_SIZE, gso_size)
        verdict, frame = self.egress(frame)
        return ctypes.c_int32(verdict).value, frame

    def sweep(self, buckets: int) -> None:
        """Run the sweep from the first bucket to the last."""
        struct.pack_into("<6I", self._sweep.context, 0, 0, 64, 0, 1, 0, 0)
        self._sweep(bytes(64), -(-buckets // SWEEP_BUCKETS))

    def set_clock(self, ns: int) -> None:
        """Say what time it is."""
        bpf.update(self.fds["test_clock"], bytes(4), struct.pack("<Q", ns))

    def counters(self) -> "array[int]":
        """Return this CPU's counters, in the order of `counter_names`."""
        self._lookup(self.fds["counters"], bytes(4), self._counters)
        at = self._cpu * self._stride
        return array("Q", self._counters.raw[at : at + self._stride])

    def meter(self, name: str, index: int) -> int:
        """Return one word of `meters` (this CPU's) or `prefix_meters`."""
        width = possible_cpus() if name == "meters" else 1
        data = bpf.lookup(self.fds[name], index.to_bytes(4, "little"), 8 * width)
        at = 8 * self._cpu if name == "meters" else 0
        return int.from_bytes((data or b"")[at : at + 8], "little")

    def clear_meter(self, name: str, index: int) -> None:
        """Zero one word on every CPU."""
        width = possible_cpus() if name == "meters" else 1
        bpf.update(self.fds[name], index.to_bytes(4, "little"), bytes(8 * width))


class KernelMapFields:
    """Names of the u64 fields of a map's struct, which has nothing else in it."""

    def __init__(self, fd: int) -> None:
        codec = codecs(bpf.map_info(fd))[1]
        assert isinstance(codec, Struct)
        self.names = sorted(codec.fields, key=lambda name: codec.fields[name][0])
        assert codec.size == 8 * len(self.names)


def packing(codec: Any, prefix: str = "") -> tuple[struct.Struct, list[str]]:
    """Return how a struct without gaps is packed at once, and its fields' names in order."""
    letters, names, at = "<", [], 0
    assert isinstance(codec, Struct)
    for name, (offset, field) in sorted(codec.fields.items(), key=lambda item: item[1][0]):
        assert offset == at, f"{codec.name}.{name} stands behind a gap"
        at += field.size
        if isinstance(field, Struct):
            inner, inner_names = packing(field, f"{name}.")
            letters += inner.format[1:]
            names += inner_names
        elif isinstance(field, Scalar):
            letters += field.letter
            names.append(prefix + name)
        else:
            assert isinstance(field, Opaque)
            letters += f"{field.size}s"
            names.append(prefix + name)
    assert at == codec.size
    return struct.Struct(letters), names
