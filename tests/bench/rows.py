"""The rows of steer-cost: which frame goes through which program on which table, and ends how."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench import frames
from bench.programs import LRU, TABLE

FAMILIES = (4, 6)
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
TC_ACT_UNSPEC = -1

# Bytes of the checks that are learned; the largest that the bound of 2.5 us holds for.
LEARNED = (100, 160, 1100)
CHECK_BYTES_MAX = 160


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many flows the rows choose from, and how many packets a run has."""

    some: int
    many: int
    packets: int
    learned: int


FULL = Sizes(some=1 << 15, many=1 << 20, packets=1_000_000, learned=12_000)
QUICK = Sizes(some=1 << 10, many=1 << 13, packets=2_000, learned=500)


@dataclass(frozen=True, slots=True)
class Row:
    """One way of a packet. `counted`: the counters each packet moves by one, in every run."""

    name: str
    program: str
    frame: bytes
    packets: int
    verdict: int = XDP_PASS
    counted: tuple[str, ...] = ()
    kind: str = TABLE
    flows: int = 0  # in the table; 0: one that is emptied before each run
    learn: bool = False  # by clients that are not known
    less: tuple[str, str] | None = None  # minus what the first row costs more than the second


def learned_name(size: int) -> str:
    """Name the row of a check that is verified and learned."""
    return f"check of {size:,} bytes, learned"


def rows_of(version: int, sizes: Sizes) -> Iterator[Row]:
    """All rows of a family."""
    rtp, many = frames.rtp(version), sizes.packets
    steered = ("received", "steered__rtp")

    def name(text: str) -> str:
        return f"IPv{version} {text}"

    nothing, any_alone, learn_alone = (
        name(text) for text in ("empty program", "any client, alone", "newcomer, alone")
    )
    yield Row(nothing, "bench_nothing", rtp, many)
    yield Row(name("bare XDP_TX"), "bench_tx", rtp, many, XDP_TX)
    yield Row(name("floor"), "bench_floor", rtp, many, counted=("steered__rtp",))
    for kind in (TABLE, LRU):
        yield Row(
            name(f"hot flow, {kind}"), "ingress", rtp, many, XDP_PASS, steered, kind, sizes.some
        )
    yield Row(any_alone, "bench_client", rtp, many)
    for flows in (sizes.some, sizes.many):
        for kind in (TABLE, LRU):
            text = name(f"{flows:,} flows, {kind}")
            less = (any_alone, nothing)
            yield Row(text, "bench_steer", rtp, many, XDP_PASS, steered, kind, flows, less=less)

    request = ("received", "steered__stun_request")
    check = frames.check(version, LEARNED[0])
    yield Row(name("check, flow known"), "ingress", check, many // 4, counted=request)
    yield Row(learn_alone, "bench_client", check, sizes.learned, learn=True)
    for size in LEARNED:
        yield Row(
            name(learned_name(size)),
            "bench_steer",
            frames.check(version, size),
            sizes.learned,
            counted=(*request, "flow__learned"),
            learn=True,
            less=(learn_alone, nothing),
        )
    dropped = ("received", "drop__unknown_class")
    yield Row(name("junk"), "ingress", frames.junk(version), many, XDP_DROP, dropped)
    yield Row(name("unrelated UDP"), "ingress", frames.unrelated_udp(version), many)
    yield Row(name("unrelated TCP"), "ingress", frames.unrelated_tcp(version), many)
    yield Row(
        name("egress"),
        "egress",
        frames.from_lane(version),
        many // 2,
        TC_ACT_UNSPEC,
        ("returned__rewritten",),
        flows=sizes.some,
    )
