"""/metrics: what the kernel counted, read from the maps when a scrape asks.

Every field of `struct counters` in bpf/abi.h becomes a series without a line here:
`drop__no_session` is turnout_drop_packets_total{reason="no_session"}. No label is a session, so
the size of a scrape depends on the number of owners alone.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from turnout import __version__
from turnout.errors import KernelError
from turnout.ownership import DRAIN_REASONS, STATES

if TYPE_CHECKING:
    from prometheus_client import Metric

    from turnout.flows import OwnerFlows
    from turnout.kernel.maps import Maps
    from turnout.ownership import Owner

log = logging.getLogger(__name__)

# What a family of counters in bpf/abi.h says; one that is new gets a plain text.
_HELP = {
    "received": "Packets for (VIP, shared port).",
    "steered": "Packets rewritten to their owner's lane, by kind.",
    "pass": "Packets for the shared port left to its socket.",
    "drop": "Packets for the shared port that were dropped, by reason.",
    "guard": "Packets from outside that were aimed past the shared port, dropped.",
    "flow": "Packets by what they did to the flow table.",
    "swept": "Flows the sweep removed, by reason.",
    "icmp": "ICMP errors about packets of ours, by what became of them.",
    "returned": "Packets of owners on their way out.",
}
# What a family counts, if not packets.
_COUNTED = {"swept": "flows"}
_OWNER_HELP = {
    "steered_packets": "Packets steered to the owner in this slot.",
    "steered_bytes": "Bytes of UDP payload steered to the owner in this slot.",
    "returned_packets": "Packets the owner in this slot sent.",
    "returned_bytes": "Bytes of UDP payload the owner in this slot sent.",
}


class Steered(Protocol):
    """What of Steering is shown."""

    @property
    def owners(self) -> "Mapping[int, Owner]":
        """Owners by slot."""

    @property
    def sessions(self) -> Mapping[str, object]:
        """Sessions by id."""

    @property
    def unconfirmed(self) -> int:
        """Sessions of an earlier agent."""

    @property
    def flows_seen(self) -> int:
        """Flows at the last complete sweep."""

    @property
    def sessions_refused(self) -> int:
        """Sessions over the host's limit."""

    def flows_of(self, slot: int) -> "OwnerFlows":
        """Flows of one owner then."""

    def owner_sessions(self, slot: int) -> Sequence[object]:
        """Sessions of one owner."""


class Drained(Protocol):
    """What of Drains is shown."""

    @property
    def ended(self) -> Mapping[str, int]:
        """How many drains are over, by reason."""

    @property
    def sessions_ended(self) -> int:
        """Sessions that a deadline ended."""

    def describe(self) -> Sequence[Mapping[str, Any]]:
        """Every drain, with slot, sessions and seconds_left."""


@dataclass(slots=True)
class Tally:
    """What the agent itself counts; the edge adds, the collector shows."""

    shared_port_datagrams: int = 0
    scrape_errors: int = 0


class EdgeCollector(Collector):
    """Reads the maps at each scrape. A map that cannot be read is counted and left out."""

    def __init__(
        self,
        maps: "Maps",
        steering: Steered,
        tally: Tally,
        interfaces: Callable[[], Sequence[Mapping[str, Any]]],
        drains: Drained,
    ) -> None:
        """Take the sources; `interfaces` gives those of the status picture."""
        self._maps = maps
        self._steering = steering
        self._tally = tally
        self._interfaces = interfaces
        self._drains = drains

    def describe(self) -> "Iterable[Metric]":
        """Nothing: the names come from the maps, and registering must not read them."""
        return ()

    def collect(self) -> "Iterable[Metric]":
        """Yield every series there is."""
        for part in (self._kernel_counters, self._owner_counters):
            try:
                yield from list(part())
            except (OSError, KernelError) as error:
                self._tally.scrape_errors += 1
                log.warning("scrape: %s cannot be read: %s", part.__name__.lstrip("_"), error)
        yield from self._owners_and_sessions()
        yield from self._drained()
        yield from self._agent()

    def _kernel_counters(self) -> "Iterable[Metric]":
        return kernel_families(self._maps.counters.sum_per_cpu(0))

    def _owner_counters(self) -> "Iterable[Metric]":
        values = {
            slot: self._maps.owner_counters.sum_per_cpu(slot)
            for slot in sorted(self._steering.owners)
        }
        for field in self._maps.owner_counters.fields:
            family = CounterMetricFamily(
                f"turnout_owner_{field}",
                _OWNER_HELP.get(field, f"{field} of the owner in this slot."),
                labels=("slot",),
            )
            for slot, record in values.items():
                family.add_metric((str(slot),), record[field])
            yield family

    def _owners_and_sessions(self) -> "Iterable[Metric]":
        owners = self._steering.owners
        states = GaugeMetricFamily("turnout_owners", "Owners by state.", labels=("state",))
        for state in STATES:
            count = sum(owner.state == state for owner in owners.values())
            states.add_metric((state,), count)
        yield states
        sessions = GaugeMetricFamily(
            "turnout_sessions", "Sessions by the slot of their owner.", labels=("slot",)
        )
        for slot in sorted(owners):
            sessions.add_metric((str(slot),), len(self._steering.owner_sessions(slot)))
        yield sessions
        flows = GaugeMetricFamily(
            "turnout_owner_flows",
            "Flows of the owner in this slot at the end of the last sweep.",
            labels=("slot",),
        )
        for slot in sorted(owners):
            flows.add_metric((str(slot),), self._steering.flows_of(slot).flows)
        yield flows
        yield GaugeMetricFamily(
            "turnout_unconfirmed_sessions",
            "Sessions of an earlier agent that are steered and not confirmed by their owner yet.",
            value=self._steering.unconfirmed,
        )
        yield GaugeMetricFamily(
            "turnout_flows",
            "Flows in the table at the end of the last complete sweep.",
            value=self._steering.flows_seen,
        )

    def _drained(self) -> "Iterable[Metric]":
        left = GaugeMetricFamily(
            "turnout_drain_sessions", "Sessions a drained owner still has.", labels=("slot",)
        )
        seconds = GaugeMetricFamily(
            "turnout_drain_deadline_left_seconds",
            "Seconds until what is left of a drained owner's sessions is ended.",
            labels=("slot",),
        )
        for drain in self._drains.describe():
            slot = (str(drain["slot"]),)
            left.add_metric(slot, drain["sessions"])
            seconds.add_metric(slot, drain["seconds_left"])
        yield left
        yield seconds
        over = CounterMetricFamily(
            "turnout_drains_ended", "Drains that are over, by how.", labels=("reason",)
        )
        for reason in DRAIN_REASONS:
            over.add_metric((reason,), self._drains.ended.get(reason, 0))
        yield over
        yield CounterMetricFamily(
            "turnout_drain_sessions_ended",
            "Sessions that were ended because a drain's deadline had come.",
            value=self._drains.sessions_ended,
        )

    def _agent(self) -> "Iterable[Metric]":
        info = GaugeMetricFamily(
            "turnout_build_info", "The version, as a label.", labels=("version",)
        )
        info.add_metric((__version__,), 1)
        yield info
        attached = GaugeMetricFamily(
            "turnout_xdp_attached", "1 where the XDP program is.", labels=("interface", "mode")
        )
        for interface in self._interfaces():
            attached.add_metric((interface["name"], interface["mode"]), 1)
        yield attached
        yield CounterMetricFamily(
            "turnout_shared_port_datagrams",
            "Datagrams that the kernel left to the socket on the shared port, discarded there.",
            value=self._tally.shared_port_datagrams,
        )
        yield CounterMetricFamily(
            "turnout_sessions_refused",
            "Sessions refused because the host has as many as it may have.",
            value=self._steering.sessions_refused,
        )
        yield CounterMetricFamily(
            "turnout_scrape_errors",
            "Times a map could not be read for a scrape.",
            value=self._tally.scrape_errors,
        )


def build_metrics_app(
    registry: CollectorRegistry, middlewares: Sequence[Middleware] = ()
) -> web.Application:
    """Return the application behind --metrics: GET /metrics in Prometheus' text format."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/metrics", answer)
    return app


def kernel_families(counters: Mapping[str, int]) -> "list[Metric]":
    """Turn the fields of `struct counters` into metrics: family__reason is family and label."""
    families: dict[str, CounterMetricFamily] = {}
    for name, value in counters.items():
        family, split, reason = name.partition("__")
        if family not in families:
            families[family] = CounterMetricFamily(
                f"turnout_{family}_{_COUNTED.get(family, 'packets')}",
                _HELP.get(family, f"Packets counted as {family}."),
                labels=("reason",) if split else (),
            )
        families[family].add_metric((reason,) if split else (), value)
    return list(families.values())
