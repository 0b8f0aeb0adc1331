"""Compiles bpf/steer.c with bcc: instructions, and the maps they refer to.

The only module that imports bcc, which brings LLVM and 100 MB with it: only the short-lived
loader, the benchmarks and the datapath tests call it.
"""

import ctypes
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.closing import Closing
from turnout.errors import CompileError
from turnout.kernel import bpf
from turnout.kernel.headers import find_headers
from turnout.kernel.pins import PROGRAMS, bpf_directory

FLOWS_MAX = 1 << 17
SESSIONS_MAX = 1 << 16
# bpf/meter.h: 64 kB a CPU, which stay in its cache.
METERS = 1 << 13

# bpf/abi.h BUCKET_PLACES.
_BUCKET_PLACES = 7
# 64 bytes a flow with its details; full to that number it refuses 4 in 10,000 (decision 0005).
_LOAD_PER_MILLE = 776

_INCLUDE = re.compile(r'^#include "([^"]+)"$')
_TYPES = {"ingress": bpf.XDP, "egress": bpf.SCHED_CLS, "sweep": bpf.XDP, "follow": bpf.XDP}
# A jumbo interface (MTU 9001 is a cloud default) takes no XDP program without it.
_FLAGS = {"ingress": bpf.XDP_HAS_FRAGS, "egress": 0, "sweep": 0, "follow": 0}

_PSEUDO_MAP_FD = 1
_LD_IMM64 = 0x18
_CALL_REGISTER = 0x8D


def join_source(directory: Path | None = None) -> str:
    """Join steer.c and its headers into one text, each header once, with #line marks."""
    directory = directory or bpf_directory()
    seen: set[str] = set()

    def lines_of(name: str) -> Iterator[str]:
        seen.add(name)
        yield f'#line 1 "bpf/{name}"'
        for number, line in enumerate((directory / name).read_text().splitlines(), start=1):
            included = _INCLUDE.match(line)
            if included is None:
                yield line
            elif included[1] not in seen:
                yield from lines_of(included[1])
                yield f'#line {number + 1} "bpf/{name}"'
            else:
                yield ""

    return "\n".join(lines_of("steer.c")) + "\n"


def flow_buckets(flows_max: int) -> int:
    """Return how many buckets hold so many flows; even, so that each has another beside it."""
    buckets = -(-flows_max * 1000 // (_LOAD_PER_MILLE * _BUCKET_PLACES))
    return buckets + buckets % 2


def compiler_flags(flows_max: int, sessions_max: int, defines: Sequence[str] = ()) -> list[str]:
    """Return the flags that size the maps; `defines`: further macros, as TURNOUT_TEST_CLOCK."""
    sizes = {
        "FLOW_BUCKETS": flow_buckets(flows_max),
        "SESSIONS_MAX": sessions_max,
        "METERS": METERS,
    }
    macros = [f"-D{name}={size}" for name, size in sizes.items()]
    return [*macros, *(f"-D{name}" for name in defines), "-Wall", "-Werror"]


def source_hash(source: str, flags: list[str]) -> str:
    """Name a program version: the same text and flags compile to the same program."""
    return hashlib.sha256("\0".join([source, *flags]).encode()).hexdigest()[:16]


@dataclass
class Compiled(Closing):
    """What bcc made, with every map of the source.

    The maps live as long as this does, or as what refers to them.
    """

    source_hash: str
    maps: Mapping[str, int]
    code: Mapping[str, bytes]
    module: Any

    def load(self, program: str, replace: Mapping[int, int] | None = None) -> bpf.Fd:
        """Load a program, with bcc's maps replaced by others: {bcc's fd: the other fd}."""
        code = with_maps(self.code[program], replace or {})
        return bpf.load_program(_TYPES[program], program, code, _FLAGS[program])

    def close(self) -> None:
        """Free bcc's maps."""
        self.module.cleanup()


def compile_programs(
    flows_max: int = FLOWS_MAX,
    sessions_max: int = SESSIONS_MAX,
    source: str | None = None,
    defines: Sequence[str] = (),
) -> Compiled:
    """Compile; CompileError ends with clang's words. `defines`: as for compiler_flags."""
    source = source or join_source()
    flags = compiler_flags(flows_max, sessions_max, defines)
    find_headers().use()
    try:
        from bcc import BPF, libbcc  # noqa: PLC0415 - brings LLVM with it
    except ImportError as error:
        msg = f"bcc cannot be imported ({error}): `apt-get install python3-bpfcc`"
        raise CompileError(msg) from error

    with _captured_stderr() as said:
        try:
            module = BPF(text=source.encode(), cflags=flags)
        except Exception as error:
            msg = f"clang refused bpf/steer.c ({error}):\n{said()[-4000:]}"
            raise CompileError(msg) from error
    code = {name: module.dump_func(name.encode()) for name in PROGRAMS}
    for name, instructions in code.items():
        if any(instructions[at] == _CALL_REGISTER for at in range(0, len(instructions), 8)):
            msg = f"bcc left a map call in {name} unresolved: a map is used outside join_source()"
            raise CompileError(msg)
    maps = _maps_of(libbcc.lib, module.module)
    return Compiled(source_hash(source, flags), maps, code, module)


def _maps_of(lib: ctypes.CDLL, module: int) -> dict[str, int]:
    """Return the descriptor of every map by its name: bcc's own binding asks by name only."""
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_table_name.restype = ctypes.c_char_p
    handle = ctypes.c_void_p(module)
    numbers = map(ctypes.c_size_t, range(lib.bpf_num_tables(handle)))
    return {
        lib.bpf_table_name(handle, at).decode(): lib.bpf_table_fd_id(handle, at) for at in numbers
    }


def with_maps(code: bytes, replace: Mapping[int, int]) -> bytes:
    """Point the instructions that load a map's address at other descriptors."""
    patched = bytearray(code)
    for at in range(0, len(patched), 8):
        if patched[at] == _LD_IMM64 and patched[at + 1] >> 4 == _PSEUDO_MAP_FD:
            fd = int.from_bytes(patched[at + 4 : at + 8], "little")
            patched[at + 4 : at + 8] = replace.get(fd, fd).to_bytes(4, "little")
    return bytes(patched)


@contextmanager
def _captured_stderr() -> Iterator[Any]:
    """Catch what clang inside bcc writes to descriptor 2, past sys.stderr."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
