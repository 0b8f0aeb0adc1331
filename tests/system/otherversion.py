"""Other versions of Turnout's programs: copies of bpf/ with their text changed."""

import shutil
from pathlib import Path

from system.edge_process import EdgeProcess
from turnout.kernel.pins import SOURCES_VARIABLE, abi_version, bpf_directory


def another_version(directory: Path, *changes: tuple[str, str, str]) -> Path:
    """Return a copy of the sources in a new `directory`: (file, text, text instead) each."""
    shutil.copytree(bpf_directory(), directory)
    for name, old, new in changes:
        text = (directory / name).read_text()
        assert old in text, f"{name} does not hold {old!r}"
        (directory / name).write_text(text.replace(old, new, 1))
    return directory


def another_program(directory: Path, number: int = 0) -> Path:
    """The same, and a hash of its own."""
    return another_version(directory, ("steer.c", "int ingress(", f"/* {number} */ int ingress("))


def another_abi(directory: Path, raised: int = 1) -> Path:
    """A counter more; at the front of a flow's details, a session and an owner a field more."""
    abi = abi_version()
    field = "__u64 added;\n"
    return another_version(
        directory,
        ("abi.h", f"#define TURNOUT_ABI {abi}", f"#define TURNOUT_ABI {abi + raised}"),
        ("abi.h", "\t/* Left to the socket", "\t__u64 steered__added;\n\n\t/* Left to the socket"),
        ("abi.h", "struct session {\n", "struct session {\n" + field),
        ("abi.h", "struct owner {\n", "struct owner {\n" + field),
        ("abi.h", "struct flow {\n", "struct flow {\n" + field),
        ("abi.h", "sizeof(struct owner) == 16", "sizeof(struct owner) == 24"),
        ("abi.h", "sizeof(struct session) == 128", "sizeof(struct session) == 136"),
        ("abi.h", "sizeof(struct flow) == 40", "sizeof(struct flow) == 48"),
    )


def upgrade_command(edge: EdgeProcess, sources: Path) -> list[str]:
    """Return the command line of `turnout upgrade` of an installation with these sources."""
    upgrade = edge.command("upgrade", "--instance", edge.instance)
    return ["env", f"{SOURCES_VARIABLE}={sources}", *upgrade]
