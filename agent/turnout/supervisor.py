"""`turnout run`: brings an edge up, keeps its processes alive, takes everything down again.

    supervisor (this) ── loader        compiles, loads, pins; ends
                      ├─ transceivers  one a core, each with its lane
                      └─ agent         maps, attachments, signaling, local API, metrics

The kernel steers on when any of them dies; whoever dies is started again. The command line is its
only caller.
"""

import asyncio
import logging
import resource
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from turnout.accounts import find_account
from turnout.children import Child, how_it_ended
from turnout.client import Client
from turnout.errors import ApiError, TurnoutError
from turnout.kernel.pins import Pins, is_bpffs
from turnout.logs import set_log_level
from turnout.reloading import Terminal, prepare_reload
from turnout.rundir import RUN_PID, ProcessId, hold, refuse_unit, starting
from turnout.setting_up import check_leftovers, set_up
from turnout.settings import Settings
from turnout.status import Picture
from turnout.stopping import drain_all
from turnout.takedown import check_namespace, end_children, take_down
from turnout.tasks import first_cause
from turnout.watchdog import end_when_stuck

log = logging.getLogger(__name__)

# Compiling takes up to 5 s before this starts to count.
READY_PATIENCE_S = 30.0


def plan(settings: Settings) -> list[str]:
    """Return what a run with these settings would change on the host, a line each."""
    pins = Pins(settings.bpffs, settings.instance)
    ports = f"{settings.lane_first}-{settings.lane_last}"
    vips = ", ".join(str(vip) for vip in settings.vips)
    lines = [
        f"create {settings.runtime} for sockets and pid files",
        *([] if is_bpffs(settings.bpffs) else [f"mount a BPF file system at {settings.bpffs}"]),
        f"pin maps and programs under {pins.directory}",
        f"reserve UDP ports {ports} (the lanes) in net.ipv4.ip_local_reserved_ports",
        f"bind UDP port {settings.shared_port} on {vips}",
    ]
    for name in settings.attach_interfaces:
        mode = "generic" if name == "lo" else settings.xdp_mode
        lines.append(f"attach to {name}: XDP ({mode} mode) and a clsact egress filter")
    if settings.transceivers:
        last = settings.lane(settings.transceivers - 1)
        lanes = f"lanes {settings.lane_first}-{last}"
        account = find_account(settings.transceiver_user)
        lines.append(f"start {settings.transceivers} transceivers on {lanes}, as user {account}")
    lines.append(f"serve WHIP on http://{settings.http} and metrics on http://{settings.metrics}")
    return lines


def child_arguments(settings: Settings, name: str) -> list[str]:
    """Return the arguments after the interpreter that start the loader or the agent."""
    instance = ("--instance", settings.instance)
    return ["-m", "turnout", name, *instance, "--runtime-root", str(settings.runtime_root)]


def transceiver_arguments(settings: Settings, slot: int) -> list[str]:
    """Return the arguments after the interpreter that start the transceiver of a slot."""
    vips = [argument for vip in settings.vips for argument in ("--vip", str(vip))]
    account = find_account(settings.transceiver_user)
    return [
        *("-m", "turnout.transceiver"),
        *("--slot", str(slot)),
        *("--lane", str(settings.lane(slot))),
        *vips,
        *("--control", str(settings.transceiver_socket(slot))),
        *("--user", f"{account.uid}:{account.gid}"),
        *("--app", settings.app),
        *(("--webhook", settings.webhook) if settings.webhook else ()),
        *("--log-level", settings.log_level),
        *(("--log-json",) if settings.log_json else ()),
    ]


def missing_transceivers(settings: Settings, picture: Picture) -> list[int]:
    """Return the slots whose transceiver has not told the agent yet that it is there.

    An owner that the agent adopted from the maps is active, but its transceiver may be gone.
    """
    active = {owner["slot"] for owner in picture["owners"] if owner["state"] == "active"}
    there = active.intersection(picture["confirmed_owners"])
    return [slot for slot in range(settings.transceivers) if slot not in there]


def describe(settings: Settings, picture: Picture) -> list[str]:
    """Return what a run changed and where it is to be found, a line each."""
    lines = []
    for interface in picture["interfaces"]:
        note = f" ({interface['note']})" if interface["note"] else ""
        lines.append(f"{interface['name']}: XDP in {interface['mode']} mode, egress filter{note}")
    for one in picture["addresses"]:
        told = ", ".join(one["advertised"])
        known = "" if told in ("", one["vip"]) else f", advertised as {told}"
        lines.append(f"VIP {one['vip']}, UDP port {settings.shared_port}{known}")
    ports = f"{settings.lane_first}-{settings.lane_last}"
    lines.append(f"lanes {ports} reserved, {settings.transceivers} transceivers on the first")
    lines.append(
        f"WHIP at http://{settings.http}/whip, metrics at http://{settings.metrics}/metrics"
    )
    lines.append(f"instance {settings.instance} is ready")
    return lines


async def until_ready(settings: Settings) -> Picture:
    """Return the picture of the edge once every part of it works. Raises TurnoutError."""
    missing = "the agent does not answer"
    try:
        async with asyncio.timeout(READY_PATIENCE_S), Client(settings.api_socket) as api:
            while True:
                try:
                    picture: Picture = await api.status()
                except (ApiError, OSError) as error:
                    log.debug("not ready: %s", error)
                else:
                    down = missing_transceivers(settings, picture)
                    if not down:
                        return picture
                    missing = f"no word from transceiver {', '.join(map(str, down))}"
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise TurnoutError(
            f"the edge is not ready after {READY_PATIENCE_S:.0f} s: {missing}"
        ) from error


class Supervisor:
    """One edge from start to end."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], read: Callable[[], Settings]
    ) -> None:
        """Take settings that name every interface and VIP; `say` gets what a person reads.

        `read` gives the settings of now, checked, when SIGHUP asks for them.
        """
        self._settings = settings
        self._say = say
        self._read = read
        self._terminal = Terminal()
        self._reload_asked = asyncio.Event()
        self._agent = self._child("agent")
        self._transceivers: list[Child] = []
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = False
        self._drain_asked = asyncio.Event()

    async def run(self) -> None:
        """Bring the edge up and keep it until SIGTERM or SIGINT; another one hurries the end.

        Raises TurnoutError when the edge does not come up; whatever happens, it is taken down.
        """
        settings = self._settings
        with hold(settings.runtime, settings.instance):
            check_namespace(settings)
            refuse_unit(settings.runtime, settings.instance)
            check_leftovers(settings)
            work = asyncio.create_task(self._work())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, work, number)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up, work)
            try:
                await work
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
            except BaseExceptionGroup as group:
                raise first_cause(group) from group
            finally:
                await self._take_down()

    async def _take_down(self) -> None:
        # In a thread: pyroute2 runs a loop of its own, which cannot be inside of this one.
        for line in await asyncio.to_thread(take_down, self._settings):
            self._say(line)

    def _stop(self, work: asyncio.Task[None], number: signal.Signals) -> None:
        """Go one step nearer to the end: drain (SIGTERM alone), stop, stop without patience."""
        drain = number == signal.SIGTERM and self._settings.drain_on_stop > 0
        if drain and not self._stopping and self._ready.is_set():
            self._drain_asked.set()
        elif not work.cancelling():
            self._say("stopping; a second signal hurries it")
            work.cancel()
        else:
            self._hurry.set()
        self._stopping = True

    async def _drain_when_asked(self, work: asyncio.Task[None]) -> None:
        await self._drain_asked.wait()
        await drain_all(self._settings.api_socket, self._settings.drain_on_stop, self._say)
        self._stop(work, signal.SIGTERM)

    def _hang_up(self, work: asyncio.Task[None]) -> None:
        # SIGHUP means two things: the settings are to be read again, or nobody is there any more.
        if self._terminal.has_gone:
            self._stop(work, signal.SIGHUP)
        else:
            self._reload_asked.set()

    async def _work(self) -> None:
        settings = self._settings
        for line in end_children(settings):
            self._say(line)
        ProcessId.mine().write(settings.runtime / RUN_PID)
        # For the children too: each client's idle connection holds a descriptor of the agent.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        async with AsyncExitStack() as coming_up, asyncio.TaskGroup() as group:
            await coming_up.enter_async_context(starting(settings.runtime))
            set_up(settings)
            loader = self._child("loader")
            returncode = await loader.run_once(self._hurry)
            if returncode != 0:
                raise TurnoutError(f"loader {how_it_ended(returncode)}; the lines above say why")
            self._start_transceivers(group)
            self._keep(self._agent, settings.api_socket, group)
            picture = await until_ready(settings)
            self._ready.set()
            await coming_up.aclose()
            for line in describe(settings, picture):
                self._say(line)
            for warning in picture["warnings"]:
                log.warning("%s", warning)
            group.create_task(self._follow_reloads(group), name="reloads")
            work = asyncio.current_task()
            if work is not None:
                group.create_task(self._drain_when_asked(work), name="drain")

    def _keep(self, child: Child, door: Path, group: asyncio.TaskGroup) -> None:
        group.create_task(child.keep(self._hurry, self._ready.is_set), name=child.name)
        group.create_task(end_when_stuck(child, door), name=f"watch {child.name}")

    async def _follow_reloads(self, group: asyncio.TaskGroup) -> None:
        """Read the settings again at each SIGHUP, for ever. Bad ones change nothing."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            try:
                reload = await prepare_reload(self._settings, self._read)
            except TurnoutError as error:
                log.error("reload refused, nothing has changed: %s", error)  # noqa: TRY400
                continue
            self._settings = reload.settings
            set_log_level(reload.settings.log_level)
            log.info("reload: %s", reload)
            if reload.applied:
                reload.settings.write()
                self._start_transceivers(group)
                self._agent.send_signal(signal.SIGHUP)

    def _child(self, name: str) -> Child:
        settings = self._settings
        return Child(name, child_arguments(settings, name), settings.runtime / f"{name}.pid")

    def _start_transceivers(self, group: asyncio.TaskGroup) -> None:
        """Have a transceiver in every slot; one that ends is started by the settings of then."""
        settings = self._settings
        for slot, child in enumerate(self._transceivers):
            child.arguments = transceiver_arguments(settings, slot)
        for slot in range(len(self._transceivers), settings.transceivers):
            child = Child(
                f"transceiver {slot}",
                transceiver_arguments(settings, slot),
                settings.runtime / f"transceiver-{slot}.pid",
                is_trusted=False,
            )
            self._transceivers.append(child)
            self._keep(child, settings.transceiver_socket(slot), group)
