"""Do the processes of a running instance have what they need and no more? A check of doctor."""

from collections.abc import Iterator

from turnout.accounts import needed_capabilities
from turnout.doctor.finding import Finding, ok, warn
from turnout.kernel.facts import Facts
from turnout.kernel.facts.processes import Process

# What an agent may have at 1,000 sessions; it has some 40 MB.
AGENT_PRIVATE_MOST = 64 << 20
_MANY = 30  # capabilities of a process that has given up none


def check_processes(facts: Facts) -> Iterator[Finding]:
    """Look at each process of the instance; nothing is said of an edge that does not run."""
    for process in facts.processes:
        wanted = needed_capabilities(facts.settings) if process.name == "agent" else set()
        yield from _check(process, wanted)


def _check(process: Process, wanted: set[str]) -> Iterator[Finding]:
    check = f"process {process.name}"
    is_fine = True
    # These have to be root with all of it: they mount, compile and start the others.
    if process.name not in ("run", "loader", "upgrade"):
        surplus = sorted(set(process.capabilities) - wanted)
        if surplus or process.may_gain or (process.uid == 0 and process.name != "agent"):
            is_fine = False
            yield warn(
                check,
                f"may do more than it needs: {_describe(process)}",
                "who finds a hole in it gets that too",
                "end the instance and start it again with `turnout run`",
            )
        if process.has_compiler:
            is_fine = False
            yield warn(
                check,
                f"has a compiler in its memory: {_describe(process)}",
                "only the loader, which ends, is to bring LLVM along",
                "report it with the lines of /proc/PID/maps that name it",
            )
    if process.name == "agent" and process.private_bytes > AGENT_PRIVATE_MOST:
        is_fine = False
        yield warn(
            check,
            f"has grown: {_describe(process)}",
            "an agent with 1,000 sessions stays below 64 MB",
            f"kill {process.pid} starts it again; calls go on meanwhile",
        )
    if is_fine:
        yield ok(check, _describe(process))


def _describe(process: Process) -> str:
    if len(process.capabilities) >= _MANY:
        capabilities = "every capability"
    else:
        capabilities = " ".join(process.capabilities) or "no capability"
    compiler = "" if process.has_compiler else ", no compiler resident"
    megabytes = process.private_bytes / (1 << 20)
    return f"{process.user}, {capabilities}, {megabytes:.0f} MB private{compiler}"
