"""The agent process: it writes what the kernel steers by and serves signaling, API and metrics.

Order matters: first the doors, so that the shared port is ours before a packet is touched; then
the maps; then the attachments; then service. When it dies the kernel steers on, and the next one
takes over what it finds. `turnout agent` is its only caller.
"""

import asyncio
import logging
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from turnout.api import build_api
from turnout.doors import discard_datagrams, open_listener, open_shared_ports
from turnout.errors import TurnoutError
from turnout.kernel.attach import attach, attached, detach
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.kernel_settings import write_kernel_settings
from turnout.metrics import EdgeCollector, Tally, build_metrics_app
from turnout.settings import Settings
from turnout.signaling.upstream import Upstream
from turnout.signaling.whip import build_whip
from turnout.status import Picture, build_status, read_interfaces
from turnout.steering import Steering
from turnout.tasks import first_cause

log = logging.getLogger(__name__)

# A step of the sweep takes some 20 ms: a tenth of the agent's time while a pass goes on.
SWEEP_STEP_PAUSE_S = 0.2
SWEEP_PASS_PAUSE_S = 10.0
INTERFACES_PAUSE_S = 5.0
SHUTDOWN_PATIENCE_S = 1.0  # for requests under way when the agent ends


async def run_agent(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises TurnoutError if something the edge needs is missing."""
    task = asyncio.current_task()
    if task is None:
        raise TurnoutError("the agent runs as a task of an event loop")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with ExitStack() as resources:
        edge = Edge(settings, resources)
        # In a thread: pyroute2 runs a loop of its own, which cannot be inside of this one.
        await asyncio.to_thread(edge.attach)
        try:
            await edge.serve()
        except asyncio.CancelledError:
            log.info("ends; the kernel steers on")
        except BaseExceptionGroup as group:
            raise first_cause(group) from group


class Edge:
    """What the agent holds: sockets, maps, steering."""

    def __init__(self, settings: Settings, resources: ExitStack) -> None:
        """Open the doors and the maps; `resources` closes them. Raises TurnoutError."""
        self._settings = settings
        self._pins = Pins(settings.bpffs, settings.instance)
        self._tally = Tally()
        self._notes: dict[str, str] = {}
        self._interfaces: list[Picture] = []
        self._shared_ports = open_shared_ports(settings, resources)
        self._http = open_listener("--http", settings.http, resources)
        self._metrics = open_listener("--metrics", settings.metrics, resources)
        self._maps = resources.enter_context(Maps.open(self._pins))
        write_kernel_settings(self._maps, settings)
        self._steering = Steering(self._maps, settings)
        self._upstreams = {
            slot: Upstream(slot, settings.transceiver_socket(slot))
            for slot in range(settings.transceivers)
        }

    def attach(self) -> None:
        """Attach to the settings' interfaces, and to no other any more. Raises AttachError."""
        runtime = self._settings.runtime
        wanted = self._settings.attach_interfaces
        for attachment in attached(self._pins):
            if attachment.interface not in wanted:
                log.info("%s is not among the interfaces any more", attachment.interface)
                detach(self._pins, runtime, attachment.interface)
        for name in wanted:
            # Loopback has no driver that could be native.
            mode = "generic" if name == "lo" else self._settings.xdp_mode
            attachment = attach(self._pins, runtime, name, mode)
            self._notes[name] = attachment.note
            log.info("%s: attached, XDP in %s mode", name, attachment.mode)
        self._interfaces = self._read_interfaces()

    async def serve(self) -> None:
        """Run everything until cancelled; what fails takes all of it down."""
        whip = build_whip(self._steering, self._upstreams, self._advertised)
        async with asyncio.TaskGroup() as group:
            run = group.create_task
            run(discard_datagrams(self._shared_ports, self._tally), name="shared ports")
            run(self._sweep(), name="sweep")
            run(self._look_at_interfaces(), name="interfaces")
            for slot, upstream in self._upstreams.items():
                run(upstream.run(self._steering), name=f"upstream {slot}")
            run(_serve(whip, self._http), name="http")
            run(_serve(build_metrics_app(self._registry()), self._metrics), name="metrics")
            api = build_api(self._steering, self._status)
            run(_serve(api, self._settings.api_socket), name="api")

    def _advertised(self) -> list[tuple[str, int]]:
        return [(str(vip), self._settings.shared_port) for vip in self._settings.vips]

    async def _look_at_interfaces(self) -> None:
        """Keep the picture of the interfaces true: others may detach what we attached."""
        while True:
            await asyncio.sleep(INTERFACES_PAUSE_S)
            self._interfaces = await asyncio.to_thread(self._read_interfaces)

    def _read_interfaces(self) -> list[Picture]:
        return [
            {**interface, "note": self._notes.get(interface["name"], "")}
            for interface in read_interfaces(self._pins)
        ]

    def _status(self) -> Picture:
        return build_status(
            self._settings, self._maps, self._steering, self._interfaces, self._tally
        )

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(
            EdgeCollector(self._maps, self._steering, self._tally, lambda: self._interfaces)
        )
        return registry

    async def _sweep(self) -> None:
        while True:
            report = self._steering.sweep(time.monotonic_ns())
            self._tally.swept_ended += report.ended
            self._tally.swept_stale += report.stale
            self._tally.swept_idle += report.idle
            await asyncio.sleep(SWEEP_PASS_PAUSE_S if report.complete else SWEEP_STEP_PAUSE_S)


async def _serve(app: web.Application, door: socket.socket | Path) -> None:
    """Serve an application on a listening socket, or on a UNIX socket at a path, for ever."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_PATIENCE_S)
    await runner.setup()
    try:
        if isinstance(door, Path):
            await web.UnixSite(runner, str(door)).start()
        else:
            await web.SockSite(runner, door).start()
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()
