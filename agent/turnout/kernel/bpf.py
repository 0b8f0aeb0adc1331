"""The bpf(2) calls that Turnout makes, through libbpf.so.1 (which python3-bpfcc depends on).

bcc 0.26 has no binding for half of these (pins, TEST_RUN, object info, links). File descriptors
are plain ints wrapped in `Fd`, so that they close. Every failure is an OSError with what was
tried; callers turn it into the KernelError that a person can act on. Called by the rest of
kernel/ and by the datapath tests.
"""

import ctypes
import errno
import mmap
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from turnout.closing import Closing
from turnout.kernel import libbpf
from turnout.kernel.libbpf import check, library

XDP = 6  # enum bpf_prog_type: BPF_PROG_TYPE_XDP
SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
LINK_XDP = 37  # enum bpf_attach_type: BPF_XDP
XDP_HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
ANY = 0  # BPF_ANY

# As much as the kernel takes: before 6.4 a log that does not fit hides the reason (ENOSPC).
_LOG_BYTES = (1 << 24) - 1
_PROGRAM_MAPS_MAX = 64  # MAX_USED_MAPS


class Fd(Closing, int):
    """An open BPF object."""

    def close(self) -> None:
        """Close the descriptor; the object lives on while something else holds it."""
        os.close(self)


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel knows of a map (struct bpf_map_info); sizes in bytes."""

    id: int
    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel knows of a program (struct bpf_prog_info); sizes in bytes."""

    id: int
    type: int
    name: str
    tag: str
    jited_bytes: int


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What BPF_PROG_TEST_RUN gave back: verdict, the packet after it."""

    verdict: int
    data: bytes


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link at a path in bpffs."""
    check(library().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def open_pin(path: Path) -> Fd:
    """Open what is pinned at `path`."""
    return Fd(check(library().bpf_obj_get(os.fsencode(path)), f"open pin {path}"))


def _object_info(fd: int, info: ctypes.Structure, what: str) -> None:
    size = ctypes.c_uint32(ctypes.sizeof(info))
    result = library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
    check(result, f"info of {what}")


def map_info(fd: int) -> MapInfo:
    """Describe the map behind `fd`."""
    raw = libbpf.RawMapInfo()
    _object_info(fd, raw, "map")
    return MapInfo(
        id=raw.id,
        name=raw.name.decode(),
        type=raw.type,
        key_size=raw.key_size,
        value_size=raw.value_size,
        max_entries=raw.max_entries,
        flags=raw.map_flags,
        btf_id=raw.btf_id,
        btf_key_type_id=raw.btf_key_type_id,
        btf_value_type_id=raw.btf_value_type_id,
    )


def make_map(like: int, entries: int = 0) -> Fd:
    """Make an empty map like another: its type, sizes, flags and layout. 0 `entries`: as many."""
    info = map_info(like)
    btf = library().bpf_btf_get_fd_by_id(info.btf_id)
    with Fd(check(btf, f"open BTF {info.btf_id}")) as layout:
        options = libbpf.MapOptions(
            sz=ctypes.sizeof(libbpf.MapOptions),
            btf_fd=layout,
            btf_key_type_id=info.btf_key_type_id,
            btf_value_type_id=info.btf_value_type_id,
            map_flags=info.flags,
        )
        fd = library().bpf_map_create(
            *(info.type, info.name.encode(), info.key_size, info.value_size),
            entries or info.max_entries,
            ctypes.byref(options),
        )
        return Fd(check(fd, f"make map {info.name}"))


def program_map_ids(fd: int) -> set[int]:
    """Return the ids of the maps that a program uses."""
    ids = (ctypes.c_uint32 * _PROGRAM_MAPS_MAX)()
    raw = libbpf.RawProgramInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
    _object_info(fd, raw, "program")
    return set(ids[: raw.nr_map_ids])


def program_info(fd: int) -> ProgramInfo:
    """Describe the program behind `fd`."""
    raw = libbpf.RawProgramInfo()
    _object_info(fd, raw, "program")
    return ProgramInfo(
        id=raw.id,
        type=raw.type,
        name=raw.name.decode(),
        tag=bytes(raw.tag).hex(),
        jited_bytes=raw.jited_prog_len,
    )


def program_by_id(program_id: int) -> Fd:
    """Open a loaded program by its id; OSError ENOENT when it is gone."""
    fd = library().bpf_prog_get_fd_by_id(program_id)
    return Fd(check(fd, f"open program id {program_id}"))


def btf_bytes(btf_id: int) -> bytes:
    """Read the raw BTF blob with that id."""
    with Fd(check(library().bpf_btf_get_fd_by_id(btf_id), f"open BTF {btf_id}")) as fd:
        raw = libbpf.RawBtfInfo()
        _object_info(fd, raw, "BTF")
        blob = ctypes.create_string_buffer(raw.btf_size)
        raw = libbpf.RawBtfInfo(btf=ctypes.addressof(blob), btf_size=len(blob))
        _object_info(fd, raw, "BTF")
        return blob.raw[: raw.btf_size]


def load_program(kind: int, name: str, code: bytes, flags: int = 0) -> Fd:
    """Load instructions; on refusal OSError whose strerror ends with the verifier's last lines."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options = libbpf.LoadOptions(
        sz=ctypes.sizeof(libbpf.LoadOptions),
        prog_flags=flags,
        log_size=len(log),
        log_buf=ctypes.cast(log, ctypes.c_char_p),
    )
    fd = library().bpf_prog_load(
        kind,
        name.encode(),
        b"Dual BSD/GPL",
        ctypes.c_char_p(code),
        ctypes.c_size_t(len(code) // 8),
        ctypes.byref(options),
    )
    if fd < 0:
        tail = "\n".join(log.value.decode(errors="replace").splitlines()[-20:])
        raise OSError(-fd, f"load {name}: {os.strerror(-fd)}\n{tail}")
    return Fd(fd)


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """Read one value; None when the key is absent."""
    value = ctypes.create_string_buffer(value_bytes)
    result = library().bpf_map_lookup_elem(fd, key, value)
    if result == -errno.ENOENT:
        return None
    check(result, "map look-up")
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Write one value."""
    check(library().bpf_map_update_elem(fd, key, value, ctypes.c_uint64(ANY)), "map update")


def delete(fd: int, key: bytes) -> bool:
    """Delete one key; False when it was absent."""
    result = library().bpf_map_delete_elem(fd, key)
    if result == -errno.ENOENT:
        return False
    check(result, "map delete")
    return True


def next_key(fd: int, key: bytes | None, key_bytes: int) -> bytes | None:
    """Return the key after `key` (the first one for None); None at the end."""
    following = ctypes.create_string_buffer(key_bytes)
    result = library().bpf_map_get_next_key(fd, key, following)
    if result == -errno.ENOENT:
        return None
    check(result, "map walk")
    return following.raw


def mapped(fd: int, length_bytes: int, *, is_writable: bool = False) -> mmap.mmap:
    """Map an array made with BPF_F_MMAPABLE into memory: the kernel's own values, as they change.

    `length_bytes`: entries times their size rounded up to 8. Whoever maps closes.
    """
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
    return mmap.mmap(fd, length_bytes, mmap.MAP_SHARED, protection)


def create_xdp_link(program: int, ifindex: int, flags: int) -> Fd:
    """Attach an XDP program as a bpf_link: it stays while the link is open or pinned."""
    options = libbpf.LinkOptions(sz=ctypes.sizeof(libbpf.LinkOptions), flags=flags)
    fd = library().bpf_link_create(program, ifindex, LINK_XDP, ctypes.byref(options))
    return Fd(check(fd, f"attach XDP to interface {ifindex}"))


def update_link(link: int, program: int) -> None:
    """Swap the program of a link in one step."""
    check(library().bpf_link_update(link, program, None), "update link")


def detach_link(link: int) -> None:
    """Detach a link now, whoever else holds it."""
    check(library().bpf_link_detach(link), "detach link")


def _link_info(fd: int) -> libbpf.RawLinkInfo:
    raw = libbpf.RawLinkInfo()
    _object_info(fd, raw, "link")
    return raw


def link_ifindex(fd: int) -> int:
    """Return the interface of an XDP link; 0 when that interface is gone."""
    return int(_link_info(fd).ifindex)


def link_program(fd: int) -> int:
    """Return the id of the program that a link runs."""
    return int(_link_info(fd).prog_id)


def run_program(
    program: int, data: bytes, *, context: bytes = b"", repeat: int = 1, room_bytes: int = 512
) -> ProgramRun:
    """Run a program on one packet (BPF_PROG_TEST_RUN). `context`: a struct xdp_md or __sk_buff."""
    out = ctypes.create_string_buffer(len(data) + room_bytes)
    packet = ctypes.create_string_buffer(data, len(data))
    options = libbpf.RunOptions(
        sz=ctypes.sizeof(libbpf.RunOptions),
        data_in=ctypes.addressof(packet),
        data_out=ctypes.addressof(out),
        data_size_in=len(data),
        data_size_out=len(out),
        repeat=repeat,
    )
    if context:
        given = ctypes.create_string_buffer(context, len(context))
        options.ctx_in = ctypes.addressof(given)
        options.ctx_size_in = len(context)
    # A signal in between would end the repetitions with EINTR, and nobody knows after how many.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        result = library().bpf_prog_test_run_opts(program, ctypes.byref(options))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    check(result, "test run")
    return ProgramRun(
        verdict=ctypes.c_int32(options.retval).value,
        data=out.raw[: options.data_size_out],
    )
