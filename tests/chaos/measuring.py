"""Counts what a row costs: everything once before it and once after it. Called by Stage.run."""

from collections import Counter
from collections.abc import Container
from typing import TYPE_CHECKING

from chaos import talkers
from chaos.measured import Measured, Numbers
from traffic.datagrams import CHECKS
from traffic.network import Drops
from traffic.registering import FIRST_CLIENT_PORT
from traffic.table import read_table
from traffic.worker import Worker
from turnout.kernel.pins import Pins

if TYPE_CHECKING:
    from chaos.calls import Standing
    from chaos.chromium import Figures
    from chaos.stage import Stage


class Measuring:
    """One row's accounts."""

    def __init__(self, stage: "Stage") -> None:
        """Begin: note how everything stands."""
        self._stage = stage
        self._counters = stage.edge.counters()
        self._at_clients, self._at_edge = self._dropped_by_sockets()
        self._full_links = stage.network.dropped_by_links()
        self._calls = stage.calls()
        self._chromium = stage.look_at_chromium()
        self._lost_out = self._look_at_transceivers()
        self._flows = _Numbered(stage.clients)
        self._talkers = stage.talkers and _Numbered(stage.talkers)

    def end(self) -> None:
        """Take no more packets into the accounts; those that are under way may still come."""
        self._flows.end()
        if self._talkers:
            self._talkers.end()

    def finish(self) -> Measured:
        """Say what has become of all of them."""
        stage = self._stage
        after = stage.edge.status()
        at_clients, at_edge = self._dropped_by_sockets()
        at_clients, at_edge = at_clients - self._at_clients, at_edge - self._at_edge
        flows = self._flows
        lost, lost_out = flows.missing(), flows.missing(stage.lanes)
        in_outage: Counter[int] = Counter()
        for one in stage.outages:
            missing: Numbers = stage.clients.ask("missing", one.first, one.last)
            missing_out: Numbers = stage.lanes.ask("missing", one.first, one.last)
            lost_out -= _only(missing_out, one.streams)
            in_outage += _only(missing, one.streams)
        lost -= in_outage
        # Each client has a socket of its own; those of the owners take everybody's.
        full = min(lost_out.total(), _at(at_edge, stage.LANES))
        full += _explained(lost - lost_out, at_clients, FIRST_CLIENT_PORT)
        sent, calls_lost, down, gap_ms = self._count_calls()
        lanes = {one["lane"] for one in after["owners"] if one["kind"] == "transceiver"}
        ports = {FIRST_CLIENT_PORT + number for number in range(len(stage.flows))}
        talkers_sent = calls_full = refused = 0
        talkers_gap_ms = 0.0
        if self._talkers and stage.talkers:
            talked = self._talkers
            talked_lost = talked.missing()
            ports |= {talkers.FIRST_PORT + number for number in talked.gaps}
            talkers_sent = talked.sent
            calls_full = _explained(talked_lost, at_clients, talkers.FIRST_PORT)
            calls_lost += talked_lost.total()
            talkers_gap_ms = talked.gap_ms(())
            refused = stage.talkers.ask("refused")
        others = sum(count for port, count in at_clients.items() if port not in ports)
        calls_full = min(calls_lost, calls_full + others + _at(at_edge, lanes))
        links = stage.network.dropped_by_links() - self._full_links
        counters: dict[str, int] = after["counters"]
        return Measured(
            sent=flows.sent,
            lost_out=lost_out.total(),
            lost=lost.total(),
            full_sockets=full,
            in_outage=in_outage.total(),
            gap_ms=flows.gap_ms({stream for one in stage.outages for stream in one.streams}),
            calls_sent=sent + talkers_sent,
            calls_lost=calls_lost,
            calls_full_sockets=calls_full,
            calls_gap_ms=max(gap_ms, talkers_gap_ms),
            calls_down=down,
            talked=talkers_sent,
            talkers_gap_ms=talkers_gap_ms,
            refused=refused,
            full_links=links - sum(one.full_links for one in stage.outages),
            strayed=self._strayed(),
            counters={
                name: count - self._counters.get(name, 0)
                for name, count in counters.items()
                if count != self._counters.get(name, 0)
            },
            adds_up=after["verdicts_add_up"],
        )

    def _count_calls(self) -> tuple[int, int, int, float]:
        """Return sent, lost, how many broke, and the longest gap in ms."""
        stage = self._stage
        now = {call.session: call for call in stage.calls()}
        kept = {call.session: call for call in self._calls if call.session not in stage.doomed}
        pairs: list[tuple[Standing | Figures, Standing | Figures]]
        pairs = [(then, now[session]) for session, then in kept.items()]
        gap_ns = max((now[session].gap_ns for session in kept), default=0)
        sessions = set(kept)
        chromium = stage.look_at_chromium()
        if self._chromium and chromium and stage.chromium_session not in stage.doomed:
            pairs.append((self._chromium, chromium))
            sessions.add(stage.chromium_session)
        sent = sum(now.sent - then.sent for then, now in pairs)
        lost = sum(now.lost_back - then.lost_back for then, now in pairs)
        lost_out = self._look_at_transceivers()
        lost += sum(lost_out.get(one, 0) - self._lost_out.get(one, 0) for one in sessions)
        # Who is unknown to every transceiver has no call, whatever its client believes.
        down = sum(not now.is_up for _, now in pairs) + len(sessions - set(lost_out))
        return sent, lost, down, gap_ns / 1e6

    def _look_at_transceivers(self) -> dict[str, int]:
        """Return by session how many of the client's packets its transceiver misses."""
        stage = self._stage
        return {
            one["id"]: one["packets_lost"]
            for slot in range(stage.conditions.transceivers)
            for one in stage.edge.transceiver(slot)["sessions"]
        }

    def _strayed(self) -> list[str]:
        stage = self._stage
        table = read_table(Pins(bpffs=stage.edge.bpffs, instance=stage.edge.instance))
        found = {source: table.get(source) for source in stage.sessions}
        return [
            f"{source[0]}:{source[1]} {flow}"
            for source, flow in found.items()
            if flow is None or flow.session != stage.sessions[source]
        ]

    def _dropped_by_sockets(self) -> tuple[Drops, Drops]:
        network = self._stage.network
        return network.socket_drops(network.client), network.socket_drops(network.edge)


class _Numbered:
    """A worker with numbered streams: from which number to which, and their gaps in between."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        worker.ask("gaps")
        self._first: Numbers = worker.ask("numbers")
        self._last: Numbers = {}
        self.gaps: Numbers = {}

    def end(self) -> None:
        self._last = self._worker.ask("numbers")
        self.gaps = self._worker.ask("gaps")

    @property
    def sent(self) -> int:
        return sum(self._last.values()) - sum(self._first.values())

    def missing(self, receiver: Worker | None = None) -> Counter[int]:
        """Return by stream how many the receiver, by default who has sent them, has not seen."""
        return Counter((receiver or self._worker).ask("missing", self._first, self._last))

    def gap_ms(self, outside: Container[int]) -> float:
        return max((ns for one, ns in self.gaps.items() if one not in outside), default=0) / 1e6


def _explained(lost: Counter[int], dropped: Drops, first_port: int) -> int:
    """Return how many of each client's packets its own socket had no room for."""
    by_client: Counter[int] = Counter()
    for stream, count in lost.items():
        by_client[stream % CHECKS] += count
    return sum(min(count, dropped[first_port + one]) for one, count in by_client.items())


def _at(dropped: Drops, ports: Container[int]) -> int:
    return sum(count for port, count in dropped.items() if port in ports)


def _only(numbers: Numbers, streams: set[int]) -> Counter[int]:
    return Counter({stream: count for stream, count in numbers.items() if stream in streams})
