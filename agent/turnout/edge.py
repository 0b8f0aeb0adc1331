"""The agent process: it writes what the kernel steers by and serves signaling, API and metrics.

Order matters: the shared port is ours before the kernel is told of it, and it is told before
anything is attached; then comes service. When it dies the kernel steers on, and the next one
takes over what it finds. While it lives it goes along with the host (netlink) and with its settings
(SIGHUP). `turnout agent` is its only caller.
"""

import asyncio
import logging
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry

from turnout.accounts import needed_capabilities
from turnout.api import build_api
from turnout.attachments import Attachments
from turnout.doors import SharedPorts, open_listener
from turnout.draining import Drains
from turnout.errors import KernelError, SettingsError, TurnoutError
from turnout.handoff import HandOffs
from turnout.host_news import tell_news
from turnout.kernel.follow import Changes, HostPicture, default_vips, look
from turnout.kernel.handoff import FollowProgram
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.kernel.sweep import SweepProgram
from turnout.logs import set_log_level
from turnout.metrics import EdgeCollector, Tally, build_metrics_app
from turnout.notify import notify, serving
from turnout.privileges import keep_only
from turnout.settings import Address, Settings
from turnout.signaling.door_metrics import DoorCollector
from turnout.signaling.ended import EndedSessions
from turnout.signaling.http_door import SHUTDOWN_PATIENCE_S, HttpDoor
from turnout.signaling.media_server import build_media_servers
from turnout.signaling.policy import TlsFiles, WhipPolicy
from turnout.signaling.problem import build_problem_middleware
from turnout.signaling.tls import TlsDoor
from turnout.signaling.upstream import Upstream
from turnout.signaling.whip import build_whip
from turnout.status import Picture, build_status
from turnout.steering import Steering
from turnout.tasks import first_cause
from turnout.transceiver_settings import TransceiverSettings
from turnout.vips import Vips

if TYPE_CHECKING:
    from turnout.signaling.offer_taker import OfferTaker

log = logging.getLogger(__name__)

# A step of the sweep takes some 2 ms: a small part of the agent's time while a pass goes on.
SWEEP_STEP_PAUSE_S = 0.05
SWEEP_PASS_PAUSE_S = 10.0
LOOK_PAUSE_S = 5.0  # at the latest; netlink tells of most changes at once


async def run_agent(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises TurnoutError if something the edge needs is missing."""
    task = asyncio.current_task()
    if task is None:
        raise TurnoutError("the agent runs as a task of an event loop")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    changes = Changes()
    loop.add_signal_handler(signal.SIGHUP, changes.announce)
    with ExitStack() as resources:
        # What the maps' BTF says is told to CAP_SYS_ADMIN only: they come before it is given up,
        # and that before the first thread.
        maps = resources.enter_context(Maps.open(Pins(settings.bpffs, settings.instance)))
        keep_only(needed_capabilities(settings))
        # In a thread: pyroute2 runs a loop of its own, which cannot be inside of this one.
        host = await asyncio.to_thread(look)
        edge = Edge(settings, maps, host, changes, resources)
        await asyncio.to_thread(edge.attach)
        try:
            await edge.serve()
        except asyncio.CancelledError:
            log.info("ends; the kernel steers on")
        except BaseExceptionGroup as group:
            raise first_cause(group) from group


class Edge:
    """What the agent holds: sockets, maps, steering."""

    def __init__(
        self,
        settings: Settings,
        maps: Maps,
        host: HostPicture,
        changes: Changes,
        resources: ExitStack,
    ) -> None:
        """Open the doors; `resources` closes them. Raises TurnoutError."""
        self._settings = settings
        self._host = host
        self._changes = changes
        self._tally = Tally()
        self._shared_ports = resources.enter_context(SharedPorts(settings.shared_port, self._tally))
        self._pins = pins = Pins(settings.bpffs, settings.instance)
        self._attachments = Attachments(pins)
        self._maps = maps
        self._sweeper = resources.enter_context(SweepProgram.open(pins))
        self._vips = Vips(self._maps, self._shared_ports)
        self._vips.start(settings, host.addresses)
        self._http = open_listener("--http", settings.http, resources)
        self._metrics = open_listener("--metrics", settings.metrics, resources)
        self._steering = Steering(self._maps, settings)
        self._transceivers = TransceiverSettings(self._steering)
        self._upstreams: dict[int, Upstream] = {}
        self._media_servers = build_media_servers(settings, self._steering)
        self._takers: dict[int, OfferTaker] = dict(self._media_servers)  # and all of ours
        self._ended = EndedSessions()
        # Before anybody speaks up: a transceiver that still drains must not look active in between.
        drains_file = settings.runtime / "drains.json"
        self._drains = Drains(self._steering, self._takers, self._ended, drains_file)
        follow = resources.enter_context(FollowProgram.open(pins))
        self._hand_offs = HandOffs(self._steering, self._upstreams, follow.run, self._ended)
        files = _tls_files(settings)
        self._tls = None if files is None else TlsDoor(files)
        self._doors: dict[str, HttpDoor] = {}
        self._group = asyncio.TaskGroup()

    def attach(self) -> None:
        """Attach to the interfaces that are there, and to no other any more. Raises AttachError.

        `turnout run` has seen to it that all are; an agent that is started again may miss one.
        """
        wanted = [name for name in self._interfaces() if name in self._host.links]
        self._attachments.attach(self._settings, wanted)
        # Of an upgrade that was killed after its first swap, or of a run before.
        for name in self._pins.remove_other_versions():
            log.info("unpinned what was left of %s", name)

    async def serve(self) -> None:
        """Run everything until cancelled; what fails takes all of it down."""
        whip = build_whip(self._steering, self._takers, self._candidates, self._policy, self._ended)
        async with self._group as group:
            run = group.create_task
            run(self._shared_ports.discard(), name="shared ports")
            run(self._sweep(), name="sweep")
            run(self._drains.run(), name="drains")
            run(self._changes.listen(), name="netlink")
            run(self._follow(), name="follow")
            self._follow_transceivers()
            for slot, server in self._media_servers.items():
                run(server.run(self._ended.remember), name=f"upstream {slot}")
            context = None if self._tls is None else self._tls.context
            self._doors["http"] = HttpDoor(whip, self._http, context)
            if self._tls is not None:
                run(self._tls.watch(), name="certificate")
            metrics = build_metrics_app(
                self._registry(), [build_problem_middleware("GET /metrics")]
            )
            self._doors["metrics"] = HttpDoor(metrics, self._metrics)
            for name, door in self._doors.items():
                run(door.serve(), name=name)
            api = build_api(self._steering, self._drains, self._hand_offs, self._status)
            run(self._serve_api(api), name="api")

    async def _serve_api(self, api: web.Application) -> None:
        """Serve the local API, the last of the doors: once it is open, all of them are."""
        runner = web.AppRunner(api, access_log=None, shutdown_timeout=SHUTDOWN_PATIENCE_S)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self._settings.api_socket)).start()
            async with serving(self._summary):
                await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()

    def _summary(self) -> str:
        up = sum(owner.state != "down" for owner in self._steering.owners.values())
        return f"{up} owners, {len(self._steering.sessions)} sessions"

    def _candidates(self) -> list[tuple[str, int]]:
        return self._settings.candidates(self._vips.offered)

    def _policy(self) -> WhipPolicy:
        settings = self._settings
        return WhipPolicy(
            token=settings.http_token,
            trusted_proxies=settings.trusted_proxies,
            ice_servers=settings.ice_servers,
            offers_a_minute=settings.offers_a_minute,
            sdp_bytes=settings.limits.sdp_bytes,
        )

    def _interfaces(self) -> list[str]:
        """Return the interfaces to be attached to: those of the host's default route too, if so."""
        wanted = dict.fromkeys(self._settings.attach_interfaces)
        if self._settings.follow_interfaces:
            wanted |= dict.fromkeys(self._host.default_interfaces)
        return list(wanted)

    async def _follow(self) -> None:
        """Go along with the host and with the settings, for ever: each time all is compared anew.

        The host is asked only when it has said that it changed: with a large routing table that
        is no small question. What others may have taken from us is looked at all the time.
        """
        default: list[Address] = []
        while True:
            if await self._changes.wait(LOOK_PAUSE_S):
                self._follow_settings()
                try:
                    host = await asyncio.to_thread(look)
                    for line in tell_news(self._host, host, self._interfaces()):
                        log.warning("%s", line)
                    self._host = host
                    default = await asyncio.to_thread(default_vips, self._interfaces(), host)
                except (KernelError, OSError) as error:
                    log.debug("the host changes while it is looked at: %s", error)
                    self._changes.announce()
                    continue
            # Before the VIPs: an address comes back before its interface is whole again.
            mend = self._attachments.mend
            try:
                await asyncio.to_thread(mend, self._settings, self._interfaces(), self._host.links)
            except OSError as error:
                # Too many open files, for one: what we know of the host stays as it was.
                log.warning("the interfaces cannot be looked at: %s", error)
                continue
            self._vips.follow(self._settings, self._host.addresses, default)
            await self._transceivers.tell(self._settings, self._vips.served)

    def _follow_settings(self) -> None:
        """Take what the supervisor has written: it has checked that all of it can be applied."""
        running = self._settings
        try:
            settings = Settings.load(running.instance, running.runtime_root)
        except SettingsError as error:
            log.error("settings stay as they are: %s", error)  # noqa: TRY400 - one line
            return
        if settings == running:
            return
        log.info("takes over new settings")
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._settings = settings
        set_log_level(settings.log_level)
        files = _tls_files(settings)
        if self._tls is not None and files is not None:
            self._tls.follow(files)
        self._steering.follow_settings(settings)
        self._follow_transceivers()
        notify("READY=1")

    def _follow_transceivers(self) -> None:
        """Have an upstream for each of our transceivers."""
        for slot in range(len(self._upstreams), self._settings.transceivers):
            upstream = Upstream(slot, self._settings.transceiver_socket(slot))
            self._upstreams[slot] = self._takers[slot] = upstream
            follow = upstream.run(self._steering, self._ended.remember)
            self._group.create_task(follow, name=f"upstream {slot}")

    def _status(self) -> Picture:
        return build_status(
            self._settings,
            self._maps,
            self._steering,
            self._attachments.picture,
            self._tally,
            vips=self._vips,
            drains=self._drains.describe(),
        )

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(
            EdgeCollector(
                self._maps,
                self._steering,
                self._tally,
                lambda: self._attachments.picture,
                self._drains,
            )
        )
        registry.register(DoorCollector(self._doors))
        return registry

    async def _sweep(self) -> None:
        while True:
            is_complete = self._steering.sweep(self._sweeper.run)
            await asyncio.sleep(SWEEP_PASS_PAUSE_S if is_complete else SWEEP_STEP_PAUSE_S)


def _tls_files(settings: Settings) -> TlsFiles | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsFiles(settings.tls_cert, settings.tls_key)
