"""Everything that stands while things happen: network, edge, numbered flows, real calls.

laboratory.py builds it and takes it down. A row (row.py) makes its event happen through the methods
here; `Stage.run` measures around it, judge.py says what to think of it.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from chaos import calls, setups, talkers
from chaos.calls import Standing
from chaos.chromium import ChromiumCall, Figures
from chaos.measured import Measured, Outage
from chaos.measuring import Measuring
from chaos.setups import Place, Setups
from system.edge_process import EdgeProcess
from system.lab import WHIP_URL
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES, run_in_namespace
from traffic import clients, lanes
from traffic.datagrams import CHECKS
from traffic.network import Network
from traffic.offering import end_session, post_offer
from traffic.registering import SHARED_PORT, register_flows
from traffic.worker import Cast, Worker

if TYPE_CHECKING:
    from traffic.clients import Flow

# Those who measure would have machines of their own: they do not wait for others.
BEFORE_OTHERS = -10
# Late packets come; Chromium's page looks at its call once a second.
SETTLE_SECONDS = 1.5
PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_HEARD_NS = 100_000_000  # a client whose last packet came later than this hears its owner


@dataclass(frozen=True, slots=True)
class Conditions:
    """How much goes on."""

    seconds: float = 10.0  # of a row, at least
    flows: int = 200
    calls: int = 4
    transceivers: int = 2
    chromium: bool = False  # one more call, where it is installed
    kills: int = 8  # of the row that kills again and again
    talkers: int = 50  # in the row that hands calls over
    lead: float = 1.0  # from where a row's accounts begin to what happens, and then to their end


class Stage:
    """A running edge with all who talk."""

    LANES = (20500, 20501)  # of the numbered flows' owners

    def __init__(
        self,
        network: Network,
        edge: EdgeProcess,
        conditions: Conditions,
        chromium: ChromiumCall | None = None,
    ) -> None:
        self.network = network
        self.edge = edge
        self.conditions = conditions
        self._cast = Cast()
        self._mark = secrets.token_bytes(4)
        self.flows: list[Flow] = []
        self.sessions: dict[tuple[str, int], int] = {}  # in the kernel, by the client's tuple
        self.outages: list[Outage] = []
        self.doomed: set[str] = set()  # sessions of calls that the row ends
        self.talkers: Worker | None = None
        self._chromium = chromium
        self.chromium_session = ""

    def set_up(self) -> None:
        """Start the edge, bring everybody on, calls and flows up."""
        network, edge = self.network, self.edge
        self.start_edge()
        self.lanes = self._cast.add(
            *("lanes", network.edge, lanes.play, network.edge, self._mark, self.LANES),
            niceness=BEFORE_OTHERS,
        )
        self.lanes.hear()
        owners = [edge.api("POST", "/owners", {"lane": lane})["slot"] for lane in self.LANES]
        registered = register_flows(edge, owners, self.conditions.flows)
        self.flows = [flow for flow, _ in registered]
        self.sessions = {flow.source: session for flow, session in registered}
        self.clients = self._cast.add(
            *("clients", network.client, clients.play, network.client, self._mark, self.flows),
            niceness=BEFORE_OTHERS,
        )
        self.clients.hear()
        self._calls = self._cast.add(
            "calls", network.client, calls.play, WHIP_URL, niceness=BEFORE_OTHERS
        )
        place = Place(
            whip=WHIP_URL,
            api=edge.runtime / "api.sock",
            owner=owners[0],
            client=CLIENT_ADDRESSES[4][0],
            target=(EDGE_ADDRESSES[4], SHARED_PORT),
        )
        self._setups = self._cast.add("set-ups", network.client, setups.play, place)
        self.clients.ask("check")
        self.renew_calls()
        self.clients.ask("start")
        time.sleep(self.conditions.lead)  # the first packets of everybody

    def run(self, happen: Callable[["Stage"], Any]) -> tuple[Any, Measured]:
        """Let it happen while everybody talks; returns what it returned, and what it cost."""
        self.outages, self.doomed = [], set()
        self.renew_calls()
        began = time.monotonic()
        measuring = Measuring(self)
        time.sleep(self.conditions.lead)
        found = happen(self)
        left = began + self.conditions.seconds - time.monotonic()
        time.sleep(max(self.conditions.lead, left))
        measuring.end()
        time.sleep(SETTLE_SECONDS)
        return found, measuring.finish()

    # --- what rows ask for

    def start_edge(self) -> None:
        """Start `turnout run`, the first one or one that adopts what there is."""
        self.edge.start(transceivers=self.conditions.transceivers)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process of the edge by its pid file's name; returns its pid."""
        pid = self.edge.pids()[name]
        os.kill(pid, number)
        return pid

    def until(self, is_so: Callable[[], bool], what: str) -> float:
        """Wait until it is so; returns the seconds that took. What the API refuses is not so."""
        began = time.monotonic()
        while True:
            try:
                if is_so():
                    return time.monotonic() - began
            except (OSError, HTTPException, KeyError, ValueError):
                pass  # of a process that has just ended or is about to come
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise AssertionError(f"after {PATIENCE_SECONDS:g} s still not so: {what}")
            time.sleep(_POLL_SECONDS)

    def until_whole(self) -> float:
        """Wait until every part of the edge works and speaks for itself; returns the seconds."""
        wanted = set(range(self.conditions.transceivers))

        def is_whole() -> bool:
            status = self.edge.status()
            active = {one["slot"] for one in status["owners"] if one["state"] == "active"}
            return wanted <= active.intersection(status["confirmed_owners"])

        return self.until(is_whole, "every transceiver is active")

    def owner(self, slot: int) -> dict[str, Any]:
        """Return an owner as the edge tells of it."""
        owners = self.edge.api("GET", "/owners")
        return next(owner for owner in owners if owner["slot"] == slot)

    def calls(self) -> list[Standing]:
        """Return the figures of the real calls."""
        figures: list[Standing] = self._calls.ask("standing")
        return figures

    def calls_of(self, slot: int) -> list[str]:
        """Return the sessions of the calls that an owner has."""
        ours = {call.session for call in self.calls()}
        sessions = self.edge.api("GET", "/sessions")
        return [one["id"] for one in sessions if one["owner"] == slot and one["id"] in ours]

    def give_up(self, slot: int | None = None) -> list[str]:
        """Say that an owner's calls, or all of them, are cut: their losses do not count.

        Returns the sessions of those that are aiortc's.
        """
        sessions = self.edge.api("GET", "/sessions")
        cut = {one["id"] for one in sessions if slot is None or one["owner"] == slot}
        self.doomed |= cut
        return [call.session for call in self.calls() if call.session in cut]

    def resource_status(self, session: str) -> int:
        """Ask for a call's WHIP resource; returns the status of the answer."""
        status: int = self._calls.ask("resource", session)
        return status

    def place_call(self) -> str:
        """Place one more call, which stays until the row is over; returns its session."""
        known = {call.session for call in self.calls()}
        self._calls.ask("keep", len(known) + 1)
        (session,) = {call.session for call in self.calls()} - known
        self.doomed.add(session)
        return session

    def offer(self) -> int:
        """Have a session made, as a client's first step does, and ended; returns its owner."""
        client = self.network.client
        location = run_in_namespace(client, lambda: post_offer(WHIP_URL).location)
        sessions = self.edge.api("GET", "/sessions")
        run_in_namespace(client, lambda: end_session(location))
        return next(int(one["owner"]) for one in sessions if location.endswith(one["id"]))

    def renew_calls(self) -> None:
        """Have as many calls as there should be, all of them up."""
        figures = self.calls()
        # A client takes half a minute to see that its session is gone: the edge knows.
        alive = {one["id"] for one in self.edge.api("GET", "/sessions")}
        wanted = [call.session for call in figures if call.is_up and call.session in alive]
        wanted = wanted[: self.conditions.calls]
        self._calls.ask("hang up", [one.session for one in figures if one.session not in wanted])
        self._calls.ask("keep", self.conditions.calls)
        if self._chromium is not None and self.chromium_session not in alive:
            known = {one["id"] for one in self.edge.api("GET", "/sessions")}
            self._chromium.place()
            now = {one["id"] for one in self.edge.api("GET", "/sessions")}
            (self.chromium_session,) = now - known

    @contextmanager
    def setting_up(self, a_second: float, kept: float) -> Iterator[list[Setups]]:
        """Have sessions made and ended meanwhile (setups.py); what came of it is in the list."""
        outcome: list[Setups] = []
        self._setups.ask("begin", a_second, kept)
        try:
            yield outcome
        finally:
            outcome.append(self._setups.ask("end", seconds=2 * PATIENCE_SECONDS))

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Have talkers on the transceivers that take sessions now as well (talkers.py)."""
        namespace = self.network.client
        count = self.conditions.talkers
        worker = self._cast.add(
            *("talkers", namespace, talkers.play, namespace, self._mark, WHIP_URL, count),
            niceness=BEFORE_OTHERS,
        )
        try:
            worker.hear()
            worker.ask("start")
            self.talkers = worker
            yield
            worker.ask("leave")
        finally:
            self.talkers = None
            self._cast.send_home(worker)

    def turnout(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `turnout` on the edge to its end."""
        return self.edge.run_command(*arguments, "--instance", self.edge.instance)

    @property
    def registered(self) -> dict[str, int]:
        """The sessions of numbered flows: their ids in the kernel by ufrag."""
        return {flow.session.ufrag: self.sessions[flow.source] for flow in self.flows}

    @contextmanager
    def outage(self, *versions: int, calls_too: bool) -> Iterator[None]:
        """Excuse the numbered flows of these IP versions from here until they are heard again.

        And the calls, which choose their version themselves.
        """
        streams = {
            stream + offset
            for stream, flow in enumerate(self.flows)
            if (6 if ":" in flow.source[0] else 4) in versions
            for offset in (0, CHECKS)
        }
        if calls_too:
            self.give_up()
        outage = Outage(streams, self.clients.ask("numbers"))
        self.outages.append(outage)
        full_links = self.network.dropped_by_links()
        time.sleep(0.2)  # those under way now arrive
        yield
        self.until(lambda: not streams & self._silent(), "all clients hear their owners again")
        outage.last = self.clients.ask("numbers")
        outage.full_links = self.network.dropped_by_links() - full_links

    def look_at_chromium(self) -> Figures | None:
        """Return what Chromium's page shows, if it is there."""
        return None if self._chromium is None else self._chromium.figures()

    def _silent(self) -> set[int]:
        silent: dict[int, int] = self.clients.ask("silent")
        return {stream for stream, ns in silent.items() if ns > _HEARD_NS}

    def end(self) -> None:
        """Send everybody home."""
        self._cast.end()
