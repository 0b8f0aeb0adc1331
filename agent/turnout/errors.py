"""Every error that Turnout raises on purpose.

    TurnoutError
    ├── SettingsError             a flag or setting has a value that cannot be used
    ├── WireError                 bytes or text from outside that do not parse (also a ValueError)
    ├── KernelError
    │   ├── HeadersError          no kernel headers to compile with
    │   ├── CompileError          clang refused bpf/steer.c
    │   ├── VerifierError         the kernel refused the program
    │   ├── SelfTestError         the program does not do with known packets what it should
    │   ├── LayoutError           a pinned map is not what this version expects
    │   └── AttachError
    │       ├── ForeignProgram    somebody else's XDP program is in place
    │       └── StackedDevices    one interface carries another
    ├── SteeringError
    │   ├── OwnerDraining         that owner takes no new sessions
    │   ├── UfragInUse            that ufrag belongs to a living session
    │   ├── UnknownOwner
    │   └── UnknownSession
    ├── SignalingError            an offer or an upstream's answer that cannot be served
    ├── ApiError                  the local API said no (raised by turnout.client)
    └── CallError                 `turnout call` did not get what it came for

Messages name the offending value and what to do about it.
"""


class TurnoutError(Exception):
    """Base of all; the CLI prints it as one line and exits 1 (2 for SettingsError)."""


class SettingsError(TurnoutError):
    """A flag or setting has a value that cannot be used; `key` is its name, where it is known."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class WireError(TurnoutError, ValueError):
    """Bytes or text from outside that do not parse."""


class KernelError(TurnoutError):
    """The kernel, or what prepares code for it, said no."""


class HeadersError(KernelError):
    """There are no kernel headers to compile with."""


class CompileError(KernelError):
    """clang refused bpf/steer.c."""


class VerifierError(KernelError):
    """The kernel refused the program; the message ends with the verifier's last lines."""


class SelfTestError(KernelError):
    """The program does not do with known packets what it should."""


class LayoutError(KernelError):
    """A pinned map has another type, size or layout than this version's."""


class AttachError(KernelError):
    """A program could not be attached to an interface."""


class ForeignProgram(AttachError):
    """Somebody else's XDP program is on the interface."""


class StackedDevices(AttachError):
    """One of the interfaces carries another, so a packet would be steered twice."""


class SteeringError(TurnoutError):
    """A session or owner cannot be what was asked."""


class OwnerDraining(SteeringError):
    """The owner is drained: it keeps what it has and takes nothing new."""


class UfragInUse(SteeringError):
    """The ufrag belongs to a living session."""


class UnknownOwner(SteeringError):
    """No owner has that slot."""


class UnknownSession(SteeringError):
    """No session has that id."""


class SignalingError(TurnoutError):
    """An offer, or an upstream's answer, that cannot be served; `status` is the HTTP status."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail


class ApiError(TurnoutError):
    """The local API answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class CallError(TurnoutError):
    """`turnout call` did not get what it came for."""
