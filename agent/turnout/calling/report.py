"""What one test call found: made by `call.py`, printed by `cli/call.py`, asserted in tests."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SetUp:
    """Milliseconds that each phase of the set-up took, None for a phase that was not reached."""

    signaling_ms: float | None = None  # POST of the offer until its answer
    ice_ms: float | None = None  # answer applied until a pair was nominated
    dtls_ms: float | None = None  # until the handshake was done
    first_media_ms: float | None = None  # until the first RTP packet of the other side

    @property
    def total_ms(self) -> float | None:
        """The sum, or None while a phase is missing."""
        phases = (self.signaling_ms, self.ice_ms, self.dtls_ms, self.first_media_ms)
        known = [phase for phase in phases if phase is not None]
        return sum(known) if len(known) == len(phases) else None


@dataclass(frozen=True, slots=True)
class Media:
    """RTP in packets, round trips in milliseconds; None is "the other side never told"."""

    sent: int = 0
    received: int = 0
    lost_back: int = 0  # of what the other side sent, by our own count of sequence numbers
    lost_out: int | None = None  # of what we sent, by the other side's receiver reports
    rtt_ice_ms: float | None = None  # one connectivity check
    rtt_rtcp_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Tone:
    """The content that came back, in windows of 100 ms."""

    hz: int
    windows: int = 0
    heard: int = 0  # windows in which the tone is stronger than everything else together


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call from the offer to the hang-up. `error` is None exactly if all of it went well."""

    url: str
    tone: Tone
    error: str | None = None
    set_up: SetUp = SetUp()
    media: Media = Media()
    local: str | None = None  # address:port of the nominated pair
    remote: str | None = None
    duration_s: float = 0.0  # from the first packet that came back until the hang-up
    session: str | None = None  # URL of the WHIP resource

    @property
    def ok(self) -> bool:
        """Whether the call was set up, the tone came back and the session was deleted."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, with `ok` and the set-up's total."""
        body = asdict(self)
        body["set_up"]["total_ms"] = self.set_up.total_ms
        return {"ok": self.ok, **body}
