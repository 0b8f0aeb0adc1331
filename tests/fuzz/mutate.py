"""Bends frames: flips bits, cuts, repeats, splices, and puts numbers where lengths stand."""

import random

TELLING = (0, 1, 4, 6, 8, 19, 20, 23, 24, 63, 64, 127, 128, 191, 192, 254, 255)
# TEST_RUN takes no less than an Ethernet header; on the way out the IP header is looked at too.
FRAME_MIN = 60


def mutate(rng: random.Random, frame: bytes, other: bytes) -> bytes:
    """Return the frame with one to four changes; `other` is another one to splice with."""
    bent = bytearray(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        # Headers are short and payloads long: half of the changes go to the former.
        end = len(bent) if rng.random() < 0.5 else min(len(bent), 90)
        at = rng.randrange(12, end)
        match rng.randrange(7):
            case 0:
                bent[at] ^= 1 << rng.randrange(8)
            case 1:
                bent[at] = rng.choice(TELLING)
            case 2:
                bent[at : at + 2] = rng.choice(TELLING).to_bytes(2, "big")
            case 3:
                del bent[max(at, FRAME_MIN) :]
            case 4:
                size = rng.choice((1, 2, 4, 8, 20))
                bent[at:at] = bent[at : at + size]
            case 5:
                del bent[at : at + rng.choice((1, 2, 4, 8))]
            case 6:
                bent[at:] = other[at:]
        bent.extend(bytes(max(FRAME_MIN - len(bent), 0)))
    return bytes(bent)
