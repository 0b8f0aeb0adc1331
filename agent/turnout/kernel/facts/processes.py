"""What the processes of a running instance are: user, capabilities, memory. Part of the facts.

From procfs; of processes that have ended meanwhile there is nothing to tell.
"""

import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from turnout.privileges import name_capabilities
from turnout.rundir import ProcessId

_COMPILER = re.compile(r"/lib(LLVM|bcc|clang)[^/]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the instance. `has_compiler`: LLVM or bcc is in its memory."""

    name: str  # of its pid file: run, agent, transceiver-0
    pid: int
    uid: int
    user: str
    capabilities: tuple[str, ...]  # the union of its threads'
    may_gain: bool  # privilege, by what it executes: no_new_privs is not set
    private_bytes: int  # memory that ends with it
    has_compiler: bool


def read_processes(runtime: Path) -> tuple[Process, ...]:
    """Read what the pid files of a runtime directory name and is alive."""
    found = []
    for path in sorted(runtime.glob("*.pid")):
        identity = ProcessId.read(path)
        if identity is None or not identity.is_ours():
            continue
        try:
            found.append(read_process(path.stem, identity.pid))
        except OSError:
            continue  # it has ended, or it is another user's and we are not root
    return tuple(found)


def read_process(name: str, pid: int) -> Process:
    """Read one process. Raises OSError: it is gone, or hidden from this user."""
    proc = Path(f"/proc/{pid}")
    effective = 0
    fields: dict[str, str] = {}
    for task in (proc / "task").iterdir():
        text = (task / "status").read_text(encoding="utf-8", errors="replace")
        fields = dict(re.findall(r"^(\w+):[ \t]*(.*)$", text, re.MULTILINE))
        effective |= int(fields["CapEff"], 16)
    uid = int(fields["Uid"].split()[1])
    rollup = (proc / "smaps_rollup").read_text(encoding="ascii")
    private_kb = re.findall(r"^Private_(?:Clean|Dirty|Hugetlb):\s+(\d+) kB$", rollup, re.MULTILINE)
    maps = (proc / "maps").read_text(encoding="utf-8", errors="replace")
    return Process(
        name=name,
        pid=pid,
        uid=uid,
        user=_user_name(uid),
        capabilities=tuple(name_capabilities(effective)),
        may_gain=fields["NoNewPrivs"] == "0",
        private_bytes=sum(map(int, private_kb)) * 1024,
        has_compiler=_COMPILER.search(maps) is not None,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
