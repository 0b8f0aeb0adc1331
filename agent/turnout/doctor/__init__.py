"""Judges the facts of a host: will an edge run here, and if not, what mends it.

Pure: the facts come from kernel/facts/, cli/doctor.py prints the findings. The checks of the
network (interfaces, routes, firewall, ports) are in network.py and firewall.py, those of a
running instance in processes.py.
"""

from collections.abc import Iterator
from pathlib import Path

from turnout.doctor.finding import Finding, fail, ok, warn
from turnout.doctor.network import examine_network
from turnout.doctor.processes import check_processes
from turnout.kernel.facts import Compiler, Facts, Kernel

MINIMUM_KERNEL = (5, 18)  # bpf_xdp_load_bytes and XDP with fragments
_NEEDED_CONFIG = (
    "CONFIG_BPF_SYSCALL",
    "CONFIG_NET_CLS_ACT",
    "CONFIG_NET_CLS_BPF",
    "CONFIG_NET_SCH_INGRESS",
)


def examine(facts: Facts) -> list[Finding]:
    """Return every finding, in the order in which an edge would meet them at its start."""
    return [
        check_version(facts.kernel),
        check_config(facts.kernel),
        check_jit(facts.kernel),
        check_loading(facts.kernel),
        check_bpffs(facts.settings.bpffs, facts.bpffs_mounted),
        *check_compiler(facts.compiler),
        *examine_network(facts),
        *check_processes(facts),
    ]


def check_version(kernel: Kernel) -> Finding:
    """Look whether the kernel has the helpers that the programs call."""
    if kernel.version >= MINIMUM_KERNEL:
        return ok("kernel", kernel.release)
    minimum = ".".join(str(part) for part in MINIMUM_KERNEL)
    return fail(
        "kernel",
        f"{kernel.release} is older than {minimum}",
        "the programs call bpf_xdp_load_bytes, which came with that version",
        f"boot a kernel of {minimum} or newer; Debian 12 comes with 6.1",
    )


def check_config(kernel: Kernel) -> Finding:
    """Look for the options that XDP and clsact need."""
    if not kernel.config:
        return ok("kernel options", "not to be read here; the load check below tells")
    missing = [name for name in _NEEDED_CONFIG if kernel.config.get(name) not in ("y", "m")]
    if missing:
        return fail(
            "kernel options",
            f"built without {', '.join(missing)}",
            "XDP needs the BPF syscall, the way out needs clsact and the BPF classifier",
            "boot a kernel with these options; Debian's own kernels have them",
        )
    return ok("kernel options", "BPF syscall, clsact and BPF classifier are built in or modules")


def check_jit(kernel: Kernel) -> Finding:
    """Look whether BPF is compiled to machine code."""
    if kernel.jit is None:
        return ok("BPF JIT", "not to be told: no program could be loaded")
    if not kernel.jit:
        return warn(
            "BPF JIT",
            "off: the test program was not compiled to machine code",
            "programs are interpreted, which costs each packet more",
            "sysctl -w net.core.bpf_jit_enable=1",
        )
    return ok("BPF JIT", "on: the test program became machine code")


def check_loading(kernel: Kernel) -> Finding:
    """Look whether this process may load an XDP program."""
    if not kernel.load_error and not kernel.missing_capabilities:
        return ok("BPF loading", "a test program was loaded (and not attached)")
    if kernel.missing_capabilities:
        return fail(
            "BPF loading",
            f"this process lacks {' and '.join(kernel.missing_capabilities)}",
            "the programs can be neither loaded nor attached; checks below may see less",
            "run as root: sudo turnout doctor",
        )
    return fail(
        "BPF loading",
        f"the kernel refused a test program: {kernel.load_error}",
        "nothing can be steered without BPF",
        "look at `dmesg`; in a container allow the bpf system call, under lockdown switch it off",
    )


def check_bpffs(path: Path, mounted: bool) -> Finding:
    """Look for the BPF file system that holds the pins."""
    if mounted:
        return ok("bpffs", f"mounted at {path}")
    return warn(
        "bpffs",
        f"no BPF file system at {path}",
        "maps and programs are pinned there so that they outlive every process; "
        "`turnout run` mounts one where there is none",
        f"mkdir -p {path} && mount -t bpf bpf {path}",
    )


def check_compiler(compiler: Compiler) -> Iterator[Finding]:
    """Look for what the loader compiles with."""
    if compiler.bcc:
        yield ok("bcc", "importable")
    else:
        yield fail(
            "bcc",
            "Python module bcc is not to be found (PyPI's package of that name is another)",
            "the loader compiles bpf/steer.c with it",
            "apt-get install python3-bpfcc, and a venv made with --system-site-packages",
        )
    headers = compiler.headers
    if headers is None:
        what, _, mend = compiler.headers_error.partition(": ")
        yield fail("kernel headers", what, "bcc compiles against a kernel tree", mend)
    elif headers.exact:
        yield ok("kernel headers", f"of the running kernel, {headers.source}")
    else:
        yield ok("kernel headers", f"of another version, which serves: {headers.source}")
