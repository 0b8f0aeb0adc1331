"""Somebody else's XDP program: two instructions that pass every packet, loaded with bpf(2) itself.

No part of the product loads or attaches it.
"""

import ctypes
import os
import struct

from pyroute2 import IPRoute

NAME = "stranger"
_SYS_BPF = 321  # x86-64
_PROG_LOAD, _TYPE_XDP = 5, 6
# mov r0, 2 (XDP_PASS); exit
_PROGRAM = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)


class _LoadAttributes(ctypes.Structure):
    """The start of union bpf_attr for BPF_PROG_LOAD (linux/bpf.h)."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    )


def attach_stranger(interface: str) -> None:
    """Attach the program in native mode to an interface of the calling thread's namespace."""
    instructions = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    license_text = ctypes.create_string_buffer(b"GPL")
    attributes = _LoadAttributes(
        prog_type=_TYPE_XDP,
        insn_cnt=len(_PROGRAM) // 8,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(license_text),
        prog_name=NAME.encode(),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = libc.syscall(
        _SYS_BPF, _PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if program < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_LOAD of the stranger's program")
    try:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname=interface)
            route.link("set", index=index, xdp_fd=program)
    finally:
        os.close(program)
