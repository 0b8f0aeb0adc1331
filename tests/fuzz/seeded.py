"""Ten bugs, put into the C one at a time: each must be found, or the fuzzer looks elsewhere.

A bug is a piece of the joined source and what stands there instead. The piece has to be there
exactly once: after a change of the C the list is to be brought up to date, not to wither.
"""

import multiprocessing
import os
from dataclasses import dataclass

from fuzz.differential import run_steps
from fuzz.generate import generate
from fuzz.pair import Pair
from fuzz.program import Program, compile_for_test, stay_on_cpu
from results import Result
from turnout.errors import TurnoutError
from turnout.kernel.compile import join_source

PACKETS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Bug:
    """What somebody could have written, in the place of what is there."""

    name: str
    there: str
    instead: str


BUGS = (
    Bug("the attribute walk pads one byte too little", "offset += (len + 3) & ~3U;",
        "offset += (len + 2) & ~3U;"),
    Bug("an attribute may end behind the message", "if (offset + len > end)",
        "if (offset + len > end + 8)"),
    Bug("the HMAC covers another length",
        "sizeof(struct stun_attribute) +\n\t\t\t  MESSAGE_INTEGRITY_BYTES",
        "MESSAGE_INTEGRITY_BYTES"),
    Bug("a reborn owner is taken for the dead one",
        "if (!owner || owner->generation != p->owner.generation)\n\t\treturn DROP(stale_owner);",
        "if (!owner)\n\t\treturn DROP(stale_owner);"),
    Bug("the tag is compared in eight bits", "is_zero((bucket->entry[i] ^ tag) >> ENTRY_TAG_SHIFT)",
        "is_zero((__u8)((bucket->entry[i] ^ tag) >> ENTRY_TAG_SHIFT))"),
    Bug("a flow counts as silent one tick late", "#define FLOW_SILENT_TICKS 6",
        "#define FLOW_SILENT_TICKS 7"),
    Bug("the second bucket is the next one, not the other of a pair",
        "second == first ? first ^ 1 : second", "second == first ? first + 1 : second"),
    Bug("a checksum that becomes 0 is sent as none", "return sum ? sum : 0xffff;", "return sum;"),
    Bug("the budget of a session is never made new", "\t\tsession->checks = 0;\n", ""),
    Bug("a flow's meter goes on in the next tick", "value >> METER_COUNT_BITS == label ?",
        "value >> (METER_COUNT_BITS + 16) == label >> 16 ?"),
)  # fmt: skip


def seed_bug(source: str, bug: Bug) -> str:
    """Return the source with the bug; ValueError where its place is not found once."""
    found = source.count(bug.there)
    if found != 1:
        msg = f"seeded bug {bug.name!r}: {bug.there!r} is {found} times in bpf/, not once"
        raise ValueError(msg)
    return source.replace(bug.there, bug.instead)


def hunt(number: int, seed: int, packets_max: int) -> tuple[int, str]:
    """Return how many packets it took to see the bug, and what was seen; "" if nothing was."""
    stay_on_cpu(number)
    with compile_for_test(seed_bug(join_source(), BUGS[number])) as compiled:
        program = Program(compiled)
        pair, sequence, differences = Pair(program), 0, list[str]()
        while pair.packets < packets_max and not differences:
            _, differences = run_steps(pair, generate(f"{seed}/{sequence}"))
            sequence += 1
        program.close()
        return pair.packets, "; ".join(differences[:2])


def run(seed: int) -> list[Result]:
    """Look for each bug; return one row each and how many were found."""
    workers = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    # A process a bug: what bcc made is freed only with the process.
    with context.Pool(workers, maxtasksperchild=1) as pool:
        waiting = [
            pool.apply_async(hunt, (number, seed, PACKETS_MAX)) for number in range(len(BUGS))
        ]
        results = []
        for bug, answer in zip(BUGS, waiting, strict=True):
            try:
                packets, seen = answer.get()
            except (OSError, TurnoutError) as error:
                packets, seen = 0, ""
                print(f"  {bug.name}: not loaded: {str(error).strip().splitlines()[-1]}")
            value = f"after {packets} packets" if seen else "not found"
            results.append(Result(f"seeded: {bug.name}", value, "found", bool(seen)))
            print(f"  {bug.name}: {value}  {seen[:120]}", flush=True)
    found = sum(result.met for result in results)
    total = Result("seeded bugs found", f"{found} of {len(BUGS)}", f"{len(BUGS)} of {len(BUGS)}",
                   found == len(BUGS))  # fmt: skip
    return [*results, total]
