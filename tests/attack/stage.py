"""Everything that stands while rows run: network, edge, lanes, clients, callers, attacker.

`open_stage` builds it and takes it down however it ends. `Stage.run` does one row and returns what
was measured; judge.py says what to think of it.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attack import callers, flood, offers
from attack.callers import Newcomers, Place, Standing
from attack.capture import Capture
from attack.flood import Sent
from attack.foreign import Foreign, compare
from attack.frames import Wire
from attack.offers import Offered
from attack.rows import Row
from attack.targets import Live, Targets
from system.edge_process import EdgeProcess
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES
from traffic import clients, lanes
from traffic.checks import build_check
from traffic.datagrams import CHECKS
from traffic.lanes import Arrivals
from traffic.network import ATTACKER_ADDRESSES, Network
from traffic.registering import FIRST_CLIENT_PORT, SHARED_PORT, register_flows, register_session
from traffic.sessions import Credentials, Tuple
from traffic.table import Table, read_table
from traffic.worker import Cast
from turnout.kernel.pins import Pins

if TYPE_CHECKING:
    from array import array

HTTP_PORT = 8080
LANES = (20500, 20501)
INSIDER_SESSIONS = 8
# Those who measure and who attack would have machines of their own: they do not wait for others.
BEFORE_OTHERS = -10
# A client address here stands for one network of many; the attacker has one too.
OFFERS_A_MINUTE = 600
# Late packets, and the RTCP report that tells of the last lost ones (every 1.25 to 3.75 s).
SETTLE_SECONDS = 4.0

Counters = dict[str, int]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row came to."""

    sent: Sent
    offered: Offered | None
    packets: int  # that numbered flows sent
    lost_out: int  # of them, not seen at the lane
    lost: int  # of them, not seen back
    lost_of_one: int  # of the flow that media-from-one forges
    calls: tuple[int, int, int]  # packets sent, packets lost, calls that are down
    newcomers: Newcomers
    round_trips: "array[int]"  # ns
    arrivals: Arrivals
    foreign: Foreign
    counters: Counters  # of the kernel, what they rose by
    adds_up: bool
    socket_drops: int
    link_drops: int


class Stage:
    """A running edge with all who play."""

    def __init__(self, network: Network, edge: EdgeProcess, *, flows: int, calls: int) -> None:
        self._network = network
        self._edge = edge
        self._pins = Pins(bpffs=edge.bpffs, instance=edge.instance)
        self._cast = Cast()
        self._mark = secrets.token_bytes(4)
        self._count, self._calls = flows, calls
        self._live: dict[Tuple, int] = {}
        self._his: set[int] = set()
        self._his_tuples: set[Tuple] = set()
        self._targets: Targets | None = None

    def set_up(self, say: Say) -> None:
        """Bring everybody on, calls and flows up, and learn what the attacker knows."""
        network, edge = self._network, self._edge
        self._lanes = self._cast.add(
            *("lanes", network.edge, lanes.play, network.edge, self._mark, LANES),
            niceness=BEFORE_OTHERS,
        )
        self._lanes.hear()
        owners = [edge.api("POST", "/owners", {"lane": lane})["slot"] for lane in LANES]
        registered = register_flows(edge, owners, self._count)
        flows = [flow for flow, _ in registered]
        self._live = {flow.source: session for flow, session in registered}
        insider = [
            register_session(edge, f"insider{n:02d}", owners[n % 2])
            for n in range(INSIDER_SESSIONS)
        ]
        self._his = {session for _, session in insider}
        place = Place(
            whip=f"http://{EDGE_ADDRESSES[4]}:{HTTP_PORT}/whip",
            api=edge.runtime / "api.sock",
            owner=owners[0],
            pairs=tuple((CLIENT_ADDRESSES[v][0], (EDGE_ADDRESSES[v], SHARED_PORT)) for v in (4, 6)),
            mark=self._mark,
        )
        self._clients = self._cast.add(
            *("clients", network.client, clients.play, network.client, self._mark, flows),
            niceness=BEFORE_OTHERS,
        )
        self._clients.hear()
        self._callers = self._cast.add("callers", network.client, callers.play, place)
        self._attacker = self._cast.add(
            "attacker", network.attacker, flood.play, niceness=BEFORE_OTHERS
        )
        self._offerer = self._cast.add("offers", network.attacker, offers.play)

        say(f"{len(flows)} numbered flows, {self._calls} calls, and one of the attacker's own")
        capture = Capture(network.middle, "port1")
        self._clients.ask("check")
        self._callers.ask("connect", self._calls + 1)
        standing: list[Standing] = self._callers.ask("standing")
        time.sleep(0.2)  # the last answers
        self._targets = self._learn(capture, [one.source for one in standing], insider)
        self._clients.ask("start")
        time.sleep(1.0)  # the first packets of everybody

    def run(self, row: Row, rate: float, seconds: float) -> Measured:
        """Do one row."""
        frames: int = self._attacker.ask("load", row.name, self._targets)
        self._lanes.ask("arrivals")
        table = read_table(self._pins)
        status = self._edge.status()
        drops = self._drops()
        standing = self._callers.ask("standing")
        first: dict[int, int] = self._clients.ask("mark")
        self._callers.ask("begin")
        offered = self._attack(row, frames, rate, seconds)
        sent: Sent = self._attacker.hear(seconds + 30) if frames else Sent(0, 0, seconds)
        last, round_trips = self._clients.ask("so far")
        after_table = read_table(self._pins)
        newcomers, tuples = self._callers.ask("end")
        time.sleep(SETTLE_SECONDS)
        after = self._edge.status()
        after_drops = self._drops()
        lost: dict[int, int] = self._clients.ask("missing", first, last)
        lost_out: dict[int, int] = self._lanes.ask("missing", first, last)
        return Measured(
            sent=sent,
            offered=offered,
            packets=sum(last.values()) - sum(first.values()),
            lost_out=sum(lost_out.values()),
            lost=sum(lost.values()),
            lost_of_one=lost.get(0, 0) + lost.get(CHECKS, 0),
            calls=_compare_calls(standing, self._callers.ask("standing"), self._calls),
            newcomers=newcomers,
            round_trips=round_trips,
            arrivals=self._lanes.ask("arrivals"),
            foreign=self._compare(row, table, after_table, tuples),
            counters=_rise(status["counters"], after["counters"]),
            adds_up=after["verdicts_add_up"],
            socket_drops=after_drops[0] - drops[0],
            link_drops=after_drops[1] - drops[1],
        )

    def end(self) -> None:
        """Send everybody home."""
        self._cast.end()

    def _learn(
        self,
        capture: Capture,
        calls: list[str | None],
        insider: list[tuple[Credentials, int]],
    ) -> Targets:
        """Put together what the attacker knows: what he saw on the wire, and his own sessions."""
        ids = {one["ufrag"]: int(one["id"][:16], 16) for one in self._edge.api("GET", "/sessions")}
        seen = {one.source: one for one in capture.read()}
        tuples = [_parse_tuple(text) for text in calls]
        for source in tuples:
            self._live[source] = ids[seen[source].ufrag]
        # The last call is the attacker's: everybody may place one.
        own_call = tuples[-1]
        self._his.add(self._live.pop(own_call))
        network = self._network
        mine = (ATTACKER_ADDRESSES[4], FIRST_CLIENT_PORT)
        self._his_tuples = {own_call, mine}
        first = insider[0][0]
        check = build_check(first.ufrag, first.pwd, secrets.token_bytes(12))
        return Targets(
            wire=Wire(
                own=network.hardware_address(network.attacker),
                edge=network.hardware_address(network.edge),
            ),
            vips=dict(EDGE_ADDRESSES),
            shared_port=SHARED_PORT,
            lanes=(*LANES, *self._transceiver_lanes()),
            live=tuple(
                Live(source, seen[source].ufrag, seen[source].check) for source in self._live
            ),
            clients=tuple(address for both in CLIENT_ADDRESSES.values() for address in both),
            insider=tuple(credentials for credentials, _ in insider),
            own=((mine, check), (own_call, seen[own_call].check)),
        )

    def _transceiver_lanes(self) -> list[int]:
        owners = self._edge.status()["owners"]
        return [owner["lane"] for owner in owners if owner["kind"] == "transceiver"]

    def _attack(self, row: Row, frames: int, rate: float, seconds: float) -> Offered | None:
        """Let it loose; returns when it is over, the flood's own figures still to be heard."""
        if frames:
            self._attacker.tell("send", rate, seconds)
        if row.offers:
            offered: Offered = self._offerer.ask("offer", HTTP_PORT, seconds, seconds=seconds + 30)
            return offered
        time.sleep(seconds)
        return None

    def _drops(self) -> tuple[int, int]:
        network = self._network
        hosts = (network.edge, network.client)
        sockets = sum(network.socket_drops(name).total() for name in hosts)
        return sockets, network.dropped_by_links()

    def _compare(self, row: Row, before: Table, after: Table, newcomers: list[Tuple]) -> Foreign:
        return compare(
            before,
            after,
            live=self._live,
            ours={*newcomers, *self._his_tuples},
            his=self._his,
            may_replay=row.replays,
        )


def _compare_calls(
    before: list[Standing], after: list[Standing], count: int
) -> tuple[int, int, int]:
    pairs = list(zip(before, after, strict=True))[:count]
    sent = sum(now.sent - then.sent for then, now in pairs)
    lost = sum(now.lost - then.lost for then, now in pairs)
    return sent, lost, sum(not now.is_up for _, now in pairs)


def _rise(before: Counters, after: Counters) -> Counters:
    rise = Counter(after)
    rise.subtract(before)
    return {name: count for name, count in rise.items() if count}


def _parse_tuple(text: str | None) -> Tuple:
    assert text is not None
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
