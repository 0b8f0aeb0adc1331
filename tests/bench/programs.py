"""The programs under the benchmark: bpf/steer.c with mains.c, on the flow table or on an LRU hash.

Each is compiled once and loaded with flow tables of several sizes. Used by steer_cost.py.
"""

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from turnout.closing import Closing
from turnout.kernel import bpf
from turnout.kernel.compile import Compiled, compile_programs, join_source, with_maps
from turnout.kernel.maps import KernelMap

HERE = Path(__file__).parent
TABLE, LRU = "table", "lru"
FLOW_MAPS = {TABLE: ("flows", "flow_details"), LRU: ("lru_flows",)}
SMALL = 1024

# What the text of find.h is where it looks a flow up, and what it is for the comparison.
_LRU_CALLS = {
    "\tfind_flow(p, settings, &place);": "\tfind_lru_flow(p, &place);",
    "\ttouch_flow(&place, p->tick);": "\ttouch_lru_flow(&place);",
}
_FIND_BY_FLOW = re.compile(
    r"^static __always_inline int find_by_flow\(.*?^}$", re.DOTALL | re.MULTILINE
)


def memory_bytes(fd: int) -> int:
    """Return what the kernel says the map takes."""
    for line in Path(f"/proc/self/fdinfo/{int(fd)}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    raise OSError(f"/proc/self/fdinfo/{int(fd)} says nothing of memlock")


def replace_once(text: str, old: str, new: str) -> str:
    """Replace what must stand in the text exactly once."""
    if text.count(old) != 1:
        raise RuntimeError(
            f"the benchmark changes {old!r} in bpf/, which stands there {text.count(old)} times: "
            "bring tests/bench up to date with it"
        )
    return text.replace(old, new)


def bench_source(kind: str) -> str:
    """Return the text of the programs with the benchmark's own below."""
    text = join_source()
    text = replace_once(
        text,
        "int ingress(struct xdp_md *ctx)",
        "static __always_inline int steer_frame(struct xdp_md *ctx)",
    )
    if kind == LRU:
        found = _FIND_BY_FLOW.search(text)
        if found is None:
            raise RuntimeError(
                "find_by_flow() is not in bpf/: bring tests/bench up to date with it"
            )
        changed = found[0]
        for old, new in _LRU_CALLS.items():
            changed = replace_once(changed, old, new)
        text = text.replace(found[0], changed)
        header = (HERE / "lru_flows.h").read_text()
        # Behind flows.h, which steer.c names before it.
        find_h = '#line 1 "bpf/find.h"'
        text = replace_once(text, find_h, f'#line 1 "bench/lru_flows.h"\n{header}\n{find_h}')
    return f'{text}#line 1 "bench/mains.c"\n{(HERE / "mains.c").read_text()}'


class Programs(Closing):
    """The programs of one kind, compiled; its small maps, which all sizes of the table share."""

    def __init__(self, kind: str, source: str | None = None) -> None:
        self.kind = kind
        self._open = ExitStack()
        self._maps: dict[str, KernelMap] = {}
        self._compiled: Compiled = self._open.enter_context(
            compile_programs(
                flows_max=SMALL, sessions_max=SMALL, source=source or bench_source(kind)
            )
        )

    def map(self, name: str) -> KernelMap:
        """Open one of the small maps."""
        return self._maps.setdefault(name, KernelMap(os.dup(self._compiled.maps[name])))

    def table(self, entries: Mapping[str, int]) -> dict[int, int]:
        """Make flow maps of these sizes: {bcc's descriptor: the new one}, as load() wants it."""
        replaced = {name: self._compiled.maps[name] for name in FLOW_MAPS[self.kind]}
        return {
            fd: self._open.enter_context(bpf.make_map(fd, entries[name]))
            for name, fd in replaced.items()
        }

    def load(self, name: str, table: Mapping[int, int]) -> bpf.Fd:
        """Load a program on a table."""
        code = self._compiled.module.dump_func(name.encode())
        kind, flags = (bpf.SCHED_CLS, 0) if name == "egress" else (bpf.XDP, bpf.XDP_HAS_FRAGS)
        return self._open.enter_context(bpf.load_program(kind, name, with_maps(code, table), flags))

    def close(self) -> None:
        """Free programs and maps."""
        for opened in self._maps.values():
            opened.close()
        self._open.close()
