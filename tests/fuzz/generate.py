"""Sequences of steps: a small world, and what happens in it, by a seed and nothing else."""

import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

from fuzz.mutate import mutate
from fuzz.packets import Packets
from fuzz.steps import PACKETS, Receive, Send, Step
from fuzz.world import World

RECORDINGS = Path(__file__).parents[1] / "vectors" / "datagrams"
SEQUENCE_PACKETS = 4000
REMEMBERED = 64
# TEST_RUN of a TC program takes no more than a page with its headroom.
SENT_MAX = 3000


def generate(seed: str, packets: int = SEQUENCE_PACKETS) -> Iterator[Step]:
    """Yield the steps of one sequence, so many packets long."""
    rng = random.Random(seed)
    ufrags, datagrams = recordings()
    world = World(rng, ufrags)
    yield from world.start()
    source = Packets(world, datagrams)
    frames: list[bytes] = [source.request().frame, source.media().frame]
    weighted = (
        (source.request, 34),
        (source.media, 22),
        (source.answer, 9),
        (source.recording, 3),
        (source.other_stun, 4),
        (source.icmp, 3),
        (source.elsewhere, 3),
        (source.nonsense, 1),
        (source.noise, 1),
        (source.jumbo, 0.3),
    )
    kinds, weights = [kind for kind, _ in weighted], list(accumulate(w for _, w in weighted))
    made = 0
    while made < packets:
        happens = rng.random()
        if happens < 0.05:
            yield world.pass_time()
            continue
        if happens < 0.07:
            yield from world.change()
            continue
        if happens < 0.15:
            step = _mutated(rng, frames)
        else:
            step = rng.choices(kinds, cum_weights=weights)[0]()
            _remember(rng, frames, step.frame)
        assert isinstance(step, PACKETS)
        made += 1
        yield step
        if rng.random() < 0.02:
            for _ in range(rng.choice((2, 5, 30))):  # the same again, at once: limits are for this
                made += 1
                yield step


def _remember(rng: random.Random, frames: list[bytes], frame: bytes) -> None:
    """Keep some frames to mutate; none so long that a header could lie beyond its first page."""
    if len(frame) > SENT_MAX:
        return
    if len(frames) < REMEMBERED:
        frames.append(frame)
    else:
        frames[rng.randrange(REMEMBERED)] = frame


def _mutated(rng: random.Random, frames: list[bytes]) -> Receive | Send:
    frame = mutate(rng, rng.choice(frames), rng.choice(frames))
    if rng.random() < 0.85 or len(frame) > SENT_MAX:
        return Receive(frame)
    return Send(frame)


@cache
def recordings() -> tuple[list[tuple[str, str]], list[bytes]]:
    """Return ufrags with passwords of the recorded calls, and what their clients sent."""
    ufrags, datagrams = [], []
    for path in sorted(RECORDINGS.glob("*.json")):
        call = json.loads(path.read_text())
        ufrags.append((call["ufrag"], call["pwd"]))
        datagrams += [bytes.fromhex(d["hex"]) for d in call["datagrams"] if d["to"] == "server"]
    return ufrags, datagrams
