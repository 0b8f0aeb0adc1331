"""One finding of `turnout doctor`: made in this package, printed by cli/doctor.py."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and how it is. `why` and `mend` are empty when all is well."""

    level: str  # ok, warn or fail
    check: str  # what was looked at: "kernel", "interface eth0"
    what: str  # how it is
    why: str = ""  # why it matters
    mend: str = ""  # a command to type, or what to do where no single command does it


def ok(check: str, what: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(OK, check, what)


def warn(check: str, what: str, why: str, mend: str) -> Finding:
    """Return a finding with which an edge runs, but perhaps not as one thinks."""
    return Finding(WARN, check, what, why, mend)


def fail(check: str, what: str, why: str, mend: str) -> Finding:
    """Return a finding with which an edge does not start or calls do not work."""
    return Finding(FAIL, check, what, why, mend)
