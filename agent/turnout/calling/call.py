"""One call as a client sees it: offer, ICE, DTLS, Opus tone out and back, hang-up, report.

aiortc is the client: an implementation that knows nothing of Turnout. `place_call` is what the
command line uses; tests that need to reach into a living call use `Call` step by step.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from turnout.calling import peer, sdp, whip
from turnout.calling.report import CallReport, Media, SetUp, Tone
from turnout.calling.tone import TONE_MAX_HZ, TONE_MIN_HZ, WINDOWS_A_SECOND, ToneDetector
from turnout.errors import CallError

log = logging.getLogger(__name__)

# Parallel calls differ by this much, so that a tone given to the wrong call is told apart.
TONE_STEP_HZ = 50
# The share of windows that must hold the tone: the first is cut by the codec's start, and a
# packet lost or late on a real path spoils one.
_HEARD_SHARE = 0.8
# How often the receiver is asked for its first packet; the resolution of `first_media_ms`.
_POLL_S = 0.005


class Call:
    """A call that hangs up when its `async with` block is left.

    `url` is the WHIP endpoint, `tone` in Hz (100 to 3000), `family` 4 or 6 keeps only candidates
    of that IP version, `connect_timeout` (seconds) bounds ICE, DTLS and the first packet together.
    """

    def __init__(
        self,
        url: str,
        *,
        tone: int = 440,
        family: int | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        whip.check_url(url)
        if not TONE_MIN_HZ <= tone <= TONE_MAX_HZ:
            raise CallError(f"a tone of {tone} Hz: allowed is {TONE_MIN_HZ} to {TONE_MAX_HZ}")
        self.url = url
        self.detector = ToneDetector(tone)
        self.peer = peer.open_peer(tone)
        self._family = family
        self._connect_timeout = connect_timeout
        self._session: str | None = None  # URL of the WHIP resource
        self._hung_up = False
        self._changed = asyncio.Event()
        self._reached: dict[str, float] = {}  # phase -> monotonic seconds
        self._pair: tuple[str | None, str | None] = (None, None)
        self._listener: asyncio.Task[None] | None = None
        self._duration_s = 0.0
        self._media = Media()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.hang_up()
        except CallError as refused:
            if error is None:
                raise
            log.warning("after a call that failed: %s", refused)

    async def connect(self) -> None:
        """Set the call up until the first packet has come back. Raises CallError with a hint."""
        offer = sdp.keep_family(await self.peer.create_offer(), self._family)
        if not sdp.candidates(offer):
            raise CallError(
                f"this machine has no {_family_name(self._family)} address besides loopback to "
                "call from"
            )
        self._reached["start"] = monotonic()
        answer = await whip.post_offer(self.url, offer)
        self._session = answer.resource
        self._reached["signaling"] = monotonic()
        answer_sdp = sdp.keep_family(answer.sdp, self._family)
        if not sdp.candidates(answer_sdp):
            offered = ", ".join(sdp.candidates(answer.sdp)) or "none"
            raise CallError(
                f"ICE failed: the answer has no {_family_name(self._family)} candidate "
                f"(candidates: {offered}); give the edge a VIP of that family"
            )
        self.peer.on_change(self._note_change)
        try:
            await self.peer.apply_answer(answer_sdp)
        except ValueError as error:
            raise CallError(f"the answer cannot be used: {error}") from error
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._await_connection()
        except TimeoutError:
            raise CallError(self._explain_timeout(offer, answer_sdp)) from None

    async def talk(self, seconds: float) -> None:
        """Let the tone run. Raises CallError if the other side ends the call meanwhile."""
        started = monotonic()
        try:
            async with asyncio.timeout(seconds):
                await self._until(lambda: self.peer.dtls_state in {"closed", "failed"})
        except TimeoutError:
            return
        finally:
            self._duration_s = monotonic() - self._reached["first_media"]
        raise CallError(f"the other side ended the call {monotonic() - started:.1f} s into it")

    async def hang_up(self) -> None:
        """Take the last figures, DELETE the session and close. Does nothing the second time."""
        if self._hung_up:
            return
        self._hung_up = True
        try:
            if self._session is not None:
                self._pair = self.peer.pair()
                self._media = await self.peer.read_media()
                # Before the peer closes: its BYE would end the session and DELETE would miss it.
                await whip.delete_session(self._session)
        finally:
            await self.peer.close()
            if self._listener is not None:
                await self._listener
                self._listener = None

    def judge_tone(self) -> None:
        """Raise CallError unless the tone came back for as long as the call went on."""
        heard, windows = self.detector.tone_windows, self.detector.windows
        expected = self._duration_s * WINDOWS_A_SECOND
        if windows < expected / 2:
            raise CallError(
                f"audio came back for {windows / WINDOWS_A_SECOND:.1f} s of the "
                f"{self._duration_s:.1f} s that the call lasted"
            )
        if not heard or heard < _HEARD_SHARE * windows:
            raise CallError(
                f"the tone of {self.detector.hz} Hz came back in {heard} of {windows} windows of "
                f"100 ms; what was heard instead: {self.detector.describe_stranger()}"
            )

    def report(self, error: str | None = None) -> CallReport:
        """Return what is known now; the media figures stand after `hang_up`."""
        detector = self.detector
        return CallReport(
            url=self.url,
            error=error,
            tone=Tone(detector.hz, windows=detector.windows, heard=detector.tone_windows),
            set_up=SetUp(
                signaling_ms=self._phase_ms("start", "signaling"),
                ice_ms=self._phase_ms("signaling", "ice"),
                dtls_ms=self._phase_ms("ice", "dtls"),
                first_media_ms=self._phase_ms("dtls", "first_media"),
            ),
            media=self._media,
            local=self._pair[0],
            remote=self._pair[1],
            duration_s=round(self._duration_s, 3),
            session=self._session,
        )

    async def _await_connection(self) -> None:
        await self._until(lambda: self.peer.ice_state in {"completed", "failed", "closed"})
        if self.peer.ice_state != "completed":
            raise TimeoutError
        await self._until(lambda: self.peer.dtls_state in {"connected", "failed", "closed"})
        if self.peer.dtls_state != "connected":
            raise CallError(
                "DTLS failed: the handshake was refused, or the certificate is not the one whose "
                "fingerprint stands in the answer"
            )
        self._listener = asyncio.create_task(self._listen())
        while not self.peer.has_received():  # noqa: ASYNC110 - aiortc has no event for it
            await asyncio.sleep(_POLL_S)
        self._reached["first_media"] = monotonic()

    async def _listen(self) -> None:
        async for samples in self.peer.decoded_audio():
            self.detector.feed(samples)

    def _note_change(self) -> None:
        now = monotonic()
        if self.peer.ice_state == "completed":
            self._reached.setdefault("ice", now)
        if self.peer.dtls_state == "connected":
            self._reached.setdefault("dtls", now)
        self._changed.set()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    def _phase_ms(self, begin: str, end: str) -> float | None:
        if begin not in self._reached or end not in self._reached:
            return None
        return round((self._reached[end] - self._reached[begin]) * 1000, 2)

    def _explain_timeout(self, offer: str, answer: str) -> str:
        ours, theirs = sdp.candidates(offer), sdp.candidates(answer)
        if "ice" not in self._reached:
            if not {_is_v6(one) for one in ours} & {_is_v6(one) for one in theirs}:
                return (
                    f"ICE failed: this machine has {', '.join(ours)} and the answer offers "
                    f"{', '.join(theirs)}: no IP version in common"
                )
            return (
                f"ICE failed: no answer to connectivity checks from {', '.join(ours)} to "
                f"{', '.join(theirs)}; is there a route, is that UDP port open in every firewall "
                "on the way, and is the edge's program on the interface where they arrive?"
            )
        if "dtls" not in self._reached:
            return (
                "DTLS failed: connectivity checks are answered, the handshake is not; are "
                "datagrams of 1,200 bytes lost on the way, or steered elsewhere?"
            )
        return (
            f"no media: connected to {theirs[0]}, and no RTP came back in "
            f"{self._connect_timeout:g} s; does the application of that transceiver send audio?"
        )


async def place_call(
    url: str,
    *,
    duration: float = 5.0,
    tone: int = 440,
    family: int | None = None,
    connect_timeout: float = 10.0,
) -> CallReport:
    """Place one call for `duration` seconds and say how it went.

    What the call met (refusals, time-outs, a missing tone) stands in the report's `error`.
    Raises CallError only for what makes a call impossible from the start: no aiortc, a URL that
    is none, a tone out of range.
    """
    call = Call(url, tone=tone, family=family, connect_timeout=connect_timeout)
    return await _carry_out(call, duration)


async def _carry_out(call: Call, duration: float) -> CallReport:
    try:
        async with call:
            await call.connect()
            await call.talk(duration)
        call.judge_tone()
    except CallError as error:
        return call.report(error=str(error))
    return call.report()


async def place_calls(
    url: str,
    count: int,
    *,
    duration: float = 5.0,
    tone: int = 440,
    family: int | None = None,
    connect_timeout: float = 10.0,
) -> list[CallReport]:
    """Place `count` calls at once, each on its own tone, 50 Hz apart upwards from `tone`."""
    most = (TONE_MAX_HZ - tone) // TONE_STEP_HZ + 1
    if not 1 <= count <= most:
        raise CallError(f"{count} calls from {tone} Hz upwards: allowed is 1 to {max(most, 1)}")
    calls = [
        Call(url, tone=tone + n * TONE_STEP_HZ, family=family, connect_timeout=connect_timeout)
        for n in range(count)
    ]
    return await asyncio.gather(*(_carry_out(call, duration) for call in calls))


def _is_v6(candidate: str) -> bool:
    return candidate.startswith("[")


def _family_name(family: int | None) -> str:
    return "IP" if family is None else f"IPv{family}"
