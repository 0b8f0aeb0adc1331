"""Changes to what is valid: bytes, and lines of text. All choices come from the given generator."""

import random
from collections.abc import Sequence

# Numbers at which a field of one, two or four bytes turns over.
EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 19, 20, 63, 64, 127, 128, 191, 192, 254, 255)
_MOST_BYTES = 2048


def mutate(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Change a datagram in one to four places; `others` lend their parts."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(rng, changed, others)
    return bytes(changed[:_MOST_BYTES])


def _change(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 32)))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.choice(EDGES)
        case 2 if at + 1 < len(data):
            data[at : at + 2] = rng.choice((0, 1, 3, 4, 255, 256, 1024, 0x7FFF, 0xFFFF)).to_bytes(2)
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case 5:
            data[at:at] = data[at:end] * rng.randrange(1, 5)
        case 6:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 20, 300)))
        case _ if others:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1)
            data[at:end] = other[cut : cut + rng.choice((4, 16, 64, 1400))]


WORDS = (
    "", " ", "0", "-1", "65536", "4294967296", "9" * 40, "²", "\u0660", "a" * 300, "\x00", "\r",
    "\u2028", "\ud7ff", "%s%n", "audio", "BUNDLE", "typ", ":", "/", "0/0", "opus/48000/2", "111",
    "UDP/TLS/RTP/SAVPF", "IN IP6 ::1", "sha-256", "AB:CD", "actpass", "passive",
)  # fmt: skip


def mutate_text(rng: random.Random, text: str, others: Sequence[str] = ()) -> str:
    """Change SDP, or a fragment of it, by the line and by the word."""
    lines = text.split("\r\n")
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines[at:at] = [lines[at]] * rng.choice((1, 1, 3, 2100))
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3 if others:
                lines[at:at] = [rng.choice(rng.choice(others).split("\r\n"))]
            case 4:
                words = lines[at].split(" ")
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                lines[at] = " ".join(words)
            case 5:
                cut = rng.randrange(len(lines[at]) + 1)
                lines[at] = (
                    lines[at][:cut] + rng.choice(WORDS) + lines[at][cut + rng.randrange(3) :]
                )
            case 6:
                lines[at] = lines[at].partition(rng.choice(":= "))[0]
            case _:
                lines[at] = "".join(rng.sample(lines[at], len(lines[at])))
    return rng.choice(("\r\n", "\r\n", "\n")).join(lines)
