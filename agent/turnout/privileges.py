"""What a process may do, and how it gives up the rest: for good, before it reads a packet.

Each process reduces itself when it has imported and opened what takes privilege: so nothing has to
be readable for, or set up for, the user that it becomes. Called by children.py for every child, by
the agent (`keep_only`) and the transceivers (`become`). prctl(2), capset(2), capabilities(7).
"""

import ctypes
import errno
import os
import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits

# linux/capability.h. Those without a name here are told by their number.
CAPABILITIES: Mapping[str, int] = MappingProxyType(
    {
        "CAP_CHOWN": 0,
        "CAP_DAC_OVERRIDE": 1,
        "CAP_DAC_READ_SEARCH": 2,
        "CAP_KILL": 5,
        "CAP_SETGID": 6,
        "CAP_SETUID": 7,
        "CAP_SETPCAP": 8,
        "CAP_NET_BIND_SERVICE": 10,
        "CAP_NET_ADMIN": 12,
        "CAP_NET_RAW": 13,
        "CAP_SYS_PTRACE": 19,
        "CAP_SYS_ADMIN": 21,
        "CAP_SYS_RESOURCE": 24,
        "CAP_PERFMON": 38,
        "CAP_BPF": 39,
    }
)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_LIBC = ctypes.CDLL(None, use_errno=True)


def name_capabilities(mask: int) -> list[str]:
    """Return the names of the capabilities of a mask, as /proc/<pid>/status has it."""
    names = {number: name for name, number in CAPABILITIES.items()}
    numbers = (number for number in range(mask.bit_length()) if mask >> number & 1)
    return [names.get(number, f"capability {number}") for number in numbers]


def die_with_parent(parent: int) -> None:
    """Have this process sent SIGTERM when its parent dies; for children of `run`.

    `parent` is the parent's pid: it may have died before this was asked.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def keep_only(names: Collection[str]) -> None:
    """Give up every capability but these, of those there are. Raises OSError.

    Before any other thread is started: capabilities belong to a thread, and a thread has those of
    the one that started it.
    """
    wanted = {CAPABILITIES[name] for name in names}
    _drop_bounding_set(wanted)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    mask = sum(1 << number for number in wanted) & _permitted()
    _capset(mask)


def become(user: int, group: int) -> None:
    """Be that user and group and nobody else, with no capability at all. Raises OSError.

    The process cannot be traced any more by others of the same user, so what several processes
    run as may be shared; and none of its memory gets into a core file.
    """
    # The kernel forgets it with the change of the user; until then it kills us if the parent dies.
    parent = os.getppid()
    # Where we were started may lie below a directory that keeps that user out.
    os.chdir("/")
    _make_terminals_write_only()
    _drop_bounding_set(())
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # To the kernel, -1 as an id is: leave it as it is.
    if os.getresuid() != (user,) * 3 or os.getresgid() != (group,) * 3:
        raise OSError(errno.EINVAL, f"user {user} and group {group} cannot be had")
    _capset(0)
    # The change of ids does it too, unless the host has set fs.suid_dumpable.
    _prctl(_PR_SET_DUMPABLE, 0)
    die_with_parent(parent)


def _make_terminals_write_only() -> None:
    """Open a terminal that we write to anew: as it was given to us, it could be read from too.

    What is typed there after `sudo turnout run` is not for an unprivileged process.
    """
    for number in (1, 2):
        if os.isatty(number):
            opened = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NOCTTY)
            os.dup2(opened, number)
            os.close(opened)


def _permitted() -> int:
    words = (_Words * 2)()
    header = _Header(_CAPABILITY_VERSION, 0)
    if _LIBC.capget(ctypes.byref(header), words):
        raise _error("capget")
    return int(words[0].permitted) | int(words[1].permitted) << 32


def _capset(mask: int) -> None:
    low, high = mask & 0xFFFFFFFF, mask >> 32
    words = (_Words * 2)(_Words(low, low, 0), _Words(high, high, 0))
    header = _Header(_CAPABILITY_VERSION, 0)
    if _LIBC.capset(ctypes.byref(header), words):
        raise _error("capset")


def _drop_bounding_set(keep: Collection[int]) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for number in range(last + 1):
        if number in keep:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except PermissionError:
            # Without CAP_SETPCAP the set is what whoever started us left; no_new_privs keeps
            # this process and what it starts from gaining from it.
            return


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero):
        raise _error(f"prctl({option}, {value})")


def _error(what: str) -> OSError:
    number = ctypes.get_errno() or errno.EINVAL
    return OSError(number, f"{what}: {os.strerror(number)}")
