"""A sine out and the proof that the same sine came back.

The proof is by frequency, not by energy: in each window of 100 ms the Goertzel algorithm gives the
share of all the signal's energy that lies at the tone. More than half of it there means that no
other frequency can be stronger. Pure arithmetic; `calling/call.py` brings and takes the samples.
"""

import math
from array import array
from operator import mul

SAMPLE_RATE = 48_000
FRAME_SAMPLES = 960  # 20 ms, what WebRTC's Opus packets carry

# The detector works on every 6th sample. A window of 100 ms tells tones 10 Hz apart.
_STEP = 6
_DETECTOR_RATE = SAMPLE_RATE // _STEP
WINDOW_SAMPLES = _DETECTOR_RATE // 10
WINDOWS_A_SECOND = _DETECTOR_RATE // WINDOW_SAMPLES

_AMPLITUDE = 8_000  # of 32,767: loud for a codec, far from clipping
# Mean square under which a window is silence: an amplitude of 100 of 32,767.
_SILENCE = 100**2 / 2
# What a tone may be: above Opus's high-pass, and well under half of the detector's rate.
TONE_MIN_HZ, TONE_MAX_HZ = 100, 3_000


class ToneSource:
    """An endless sine of an integer frequency, in frames of 20 ms of s16 mono at 48 kHz."""

    def __init__(self, hz: int) -> None:
        turn = 2 * math.pi * hz / SAMPLE_RATE
        # An integer frequency repeats after one second, which is a whole number of frames.
        second = array("h", (round(_AMPLITUDE * math.sin(turn * n)) for n in range(SAMPLE_RATE)))
        self._frames = [
            second[start : start + FRAME_SAMPLES].tobytes()
            for start in range(0, SAMPLE_RATE, FRAME_SAMPLES)
        ]
        self._next = 0

    def next_frame(self) -> bytes:
        """Return the next 960 samples."""
        frame = self._frames[self._next]
        self._next = (self._next + 1) % len(self._frames)
        return frame


class ToneDetector:
    """Counts the windows of 100 ms of a signal, and those that the tone `hz` dominates."""

    def __init__(self, hz: int) -> None:
        self.hz = hz
        self.windows = 0
        self.tone_windows = 0
        self.silent_windows = 0
        self._wave = _wave(hz)
        self._samples: list[int] = []
        self._stranger: list[int] = []  # the last window that was neither silence nor the tone

    def feed(self, samples: "array[int]") -> None:
        """Take mono s16 samples at 48 kHz, in whole frames (a multiple of 6 samples)."""
        self._samples.extend(samples[::_STEP])
        while len(self._samples) >= WINDOW_SAMPLES:
            window = self._samples[:WINDOW_SAMPLES]
            del self._samples[:WINDOW_SAMPLES]
            self.windows += 1
            if _energy(window) < _SILENCE * WINDOW_SAMPLES:
                self.silent_windows += 1
            elif _share(window, self._wave) > 0.5:
                self.tone_windows += 1
            else:
                self._stranger = window

    def describe_stranger(self) -> str:
        """Say what was heard where the tone was not, for an error message."""
        if not self.windows:
            return "nothing was decoded"
        if not self._stranger:
            return "silence" if self.silent_windows else "the tone alone"
        step = _DETECTOR_RATE // WINDOW_SAMPLES
        shares = {
            hz: _share(self._stranger, _wave(hz))
            for hz in range(TONE_MIN_HZ, TONE_MAX_HZ + 1, step)
        }
        loudest = max(shares, key=lambda hz: shares[hz])
        if shares[loudest] < 0.25:
            return "noise without a dominant frequency"
        return f"mostly {loudest} Hz"


def at_48_khz(samples: "array[int]", rate: int) -> "array[int]":
    """Return s16 samples at 48 kHz: G.711 is decoded to 8 kHz. Each is held; no tone moves."""
    times = SAMPLE_RATE // rate
    if times == 1:
        return samples
    return array("h", [one for one in samples for _ in range(times)])


def _wave(hz: int) -> tuple[list[float], list[float]]:
    turn = 2 * math.pi * hz / _DETECTOR_RATE
    return (
        [math.cos(turn * n) for n in range(WINDOW_SAMPLES)],
        [math.sin(turn * n) for n in range(WINDOW_SAMPLES)],
    )


def _energy(window: list[int]) -> float:
    return float(sum(map(mul, window, window)))


def _share(window: list[int], wave: tuple[list[float], list[float]]) -> float:
    """Return how much of the window's energy lies at the wave's frequency: 1 for a pure tone."""
    real = sum(map(mul, window, wave[0]))
    imaginary = sum(map(mul, window, wave[1]))
    energy = _energy(window)
    return 2 * (real**2 + imaginary**2) / (len(window) * energy) if energy else 0.0
