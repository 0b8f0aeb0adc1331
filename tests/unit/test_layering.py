"""The layers of docs/architecture, held: who may import whom, read from the sources' ASTs.

An import points down or stays in its layer, and nowhere does a circle of imports close. A new
module must be given its place in LAYERS or APART.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "agent" / "turnout"

# From the top: parts of the package (a module or a sub-package) that may import each other and
# everything below.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__", "cli"}),
    frozenset({"supervisor", "reloading", "setting_up", "units", "upgrading"}),
    frozenset({"edge", "takedown", "children", "stopping", "watchdog"}),
    frozenset({"attachments", "host_news", "transceiver_settings"}),
    frozenset({"api", "draining", "handoff", "signaling", "status", "vips", "doors", "defaults"}),
    frozenset({"steering", "metrics", "doctor"}),
    frozenset(
        {"adoption", "flows", "kernel_settings", "owner_table", "ownership", "session_table"}
    ),
    frozenset({"kernel"}),
    frozenset(
        {"accounts", "exposure", "installation", "settings", "rundir", "portranges", "tasks"}
    ),
    frozenset({"wire"}),
    frozenset({"closing", "errors", "files", "logs", "notify", "privileges", ""}),
)

# Programs of their own, which share a package with the edge and nothing else: what they may
# import, and which parts may import them.
APART = {
    "transceiver": ({"wire", "errors", "logs", "notify", "privileges"}, frozenset[str]()),
    "calling": ({"wire", "errors"}, {"cli"}),
    "client": ({"errors"}, {"cli", "supervisor", "reloading", "stopping", "upgrading"}),
}

# Outside modules and the only parts that may import them.
ONLY_IN = {
    "aiortc": {"calling"},
    "av": {"calling"},
    "bcc": {"kernel"},
    "ctypes": {"kernel", "privileges", "transceiver"},
    "numpy": {"calling"},
    "pyroute2": {"kernel"},
    "OpenSSL": {"transceiver"},
    "pylibsrtp": {"transceiver"},
}

# wire/ is pure: bytes and values in, bytes and values out.
IMPURE = {
    "asyncio",
    "os",
    "pathlib",
    "random",
    "select",
    "socket",
    "subprocess",
    "threading",
    "time",
}

MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the dotted name below `turnout`; "" is the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def part_of(name: str) -> str:
    """Return the first component of a dotted name below `turnout`."""
    return name.partition(".")[0]


def imports_of(path: Path, *, with_types: bool = True) -> Iterator[str]:
    """Yield the full dotted name of everything a file imports, wherever in it that stands.

    Without `with_types` what stands under `if TYPE_CHECKING:` is left out.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.body if with_types else []
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import with its full name"
            assert node.module is not None
            # `from turnout.kernel import host` imports a module; of a name in a module the last
            # component is dropped where it matters.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports_of(path: Path, *, with_types: bool = True) -> Iterator[str]:
    """Yield what a file imports of the package, as names below `turnout` of existing modules."""
    known = {name_of(module) for module in MODULES}
    for name in imports_of(path, with_types=with_types):
        if part_of(name) == "turnout":
            below = name.partition(".")[2]
            yield below if below in known else below.rpartition(".")[0]


def layer_of(part: str) -> int:
    """Return the place of a part in LAYERS."""
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    pytest.fail(f"turnout.{part} has no place in LAYERS or APART of {Path(__file__).name}")


def test_sources_are_found() -> None:
    assert {"errors", "kernel.maps", "wire.stun"} <= {name_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_of_a_module_point_down(path: Path) -> None:
    part = part_of(name_of(path))
    for imported in map(part_of, own_imports_of(path)):
        if imported == part:
            continue
        if part in APART:
            assert imported in APART[part][0], f"{part} is apart and may not import {imported}"
        elif imported in APART:
            assert part in APART[imported][1], f"{part} may not import {imported}, which is apart"
        else:
            assert layer_of(part) <= layer_of(imported), f"{part} imports {imported}, above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_outside_modules_stay_where_they_belong(path: Path) -> None:
    part = part_of(name_of(path))
    outside = {part_of(name) for name in imports_of(path)}
    strangers = {name for name in outside & ONLY_IN.keys() if part not in ONLY_IN[name]}
    assert not strangers, f"{part} imports {strangers}; they belong to {ONLY_IN}"
    if part == "wire":
        assert not outside & IMPURE, "wire/ knows no clock, no IO and no process"


def test_no_circle_of_imports() -> None:
    """Two modules may name each other's types, but neither needs the other to be imported."""
    imports = {name_of(path): set(own_imports_of(path, with_types=False)) for path in MODULES}
    while free := {name for name, needed in imports.items() if not needed & imports.keys()}:
        imports = {name: needed for name, needed in imports.items() if name not in free}
    assert not imports, f"these import each other in a circle: {sorted(imports)}"
