"""`turnout upgrade`: puts this installation's programs and agent in place of those that run.

    prepare   compile, verify, self-test, pin beside what runs; refused: nothing has changed
    same ABI  swap the programs on every interface (kernel/swap.py); then the agent ends
    other ABI the agent ends; last copy of the maps, commit, swap, merge (kernel/carry.py)
    agent     the supervisor starts it again, from this installation

A lock keeps the agent from starting in between, and goes with whoever holds it: killed at any
point, the edge goes on with what is committed, and the next upgrade or run does the rest.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from turnout.client import Client
from turnout.errors import ApiError, KernelError, TurnoutError
from turnout.installation import Installation
from turnout.kernel.loader import Ready, prepare
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.kernel.swap import Swap
from turnout.kernel_settings import vips_in_use, write_kernel_settings
from turnout.rundir import AGENT_PID, RUN_PID, ProcessId, active_unit, upgrade_alone
from turnout.settings import Settings
from turnout.status import verdict_sum
from turnout.takedown import check_namespace

AGENT_END_S = 10.0
AGENT_READY_S = 30.0
_LOOK_PAUSE_S = 0.1

Say = Callable[[str], None]


def upgrade(settings: Settings, say: Say) -> None:
    """Upgrade the instance that runs with these settings. Raises TurnoutError."""
    check_namespace(settings)
    if not _is_up(settings.runtime):
        raise TurnoutError(
            f"instance {settings.instance} does not run: `turnout run` starts it as this version "
            "and takes over what is pinned"
        )
    if not Installation.is_known(settings.runtime):
        raise TurnoutError(
            f"instance {settings.instance} was started by a version that cannot be upgraded while "
            "it runs: `turnout down` and `turnout run`"
        )
    started_s = time.monotonic()
    pins = Pins(settings.bpffs, settings.instance)
    with upgrade_alone(settings.runtime, settings.instance):
        before = ProcessId.read(settings.runtime / AGENT_PID)
        try:
            with prepare(
                pins, flows_max=settings.flow_table, sessions_max=settings.session_table
            ) as ready:
                report = ready.report(time.monotonic() - started_s)
                how = "compiled and tested" if report.compiled else "pinned already, adopted"
                say(f"programs {report.source_hash}: {how}, {report.seconds:.1f} s")
                swapping_s = time.monotonic()
                if not _is_up(settings.runtime):
                    ready.withdraw()
                    raise TurnoutError(_ended(settings))
                _replace(settings, ready, say)
        except (KernelError, OSError) as error:
            raise TurnoutError(f"refused, what ran before runs on: {error}") from error
        say(f"the agent ended; {time.monotonic() - swapping_s:.2f} s from prepared to swapped")
    asyncio.run(_until_ready(settings, before))
    say(f"the agent answers again; {time.monotonic() - started_s:.1f} s in all")


def _replace(settings: Settings, ready: Ready, say: Say) -> None:
    """Swap programs and end the agent; when that fails all is as it was, or TurnoutError says."""
    runtime = settings.runtime
    was = Installation.of(runtime)
    old_egress = ready.old_egress
    # It asks gateways, which takes its time: before the last copy of the maps.
    swap = None if old_egress is None else Swap(ready.pins, ready.programs, old_egress)
    try:
        if ready.carry is not None:
            # What it wrote from now on would be lost.
            _end_agent(runtime)
            ready.commit(lambda maps: _finish(maps, settings))
        # Before the first swap: the agent that comes must know the maps that are written to.
        Installation.mine().write(runtime)
        names = [] if swap is None else swap.run(ready.merge)
    except BaseException:
        try:
            was.write(runtime)
        finally:
            ready.withdraw()
        raise
    say(f"swapped on {', '.join(names) or 'no interface'}")
    if ready.carry is None:
        ready.drop_old_programs()
        _end_agent(runtime)
        return
    carried = ", ".join(f"{count} {name}" for name, count in ready.carry.carried.items())
    old = ", ".join(ready.pins.remove_other_versions())
    say(f"{ready.pins.directory.name} in place of {old}: carried over {carried}")


def _finish(maps: Maps, settings: Settings) -> None:
    """Write what the new ABI may have that the old one had not, before anybody steers by it."""
    record = maps.settings.lookup(0) or {}
    if any(record.get("flow_keys", ())):
        write_kernel_settings(maps, settings, vips_in_use(record))
    counters = maps.counters.sum_per_cpu(0)
    # Packets were counted while they were read: some are received and have no verdict yet.
    maps.counters.put_sum(0, {**counters, "received": verdict_sum(counters)})


def _end_agent(runtime: Path) -> None:
    agent = ProcessId.read(runtime / AGENT_PID)
    if agent is not None:
        agent.stop(AGENT_END_S)


def _is_up(runtime: Path) -> bool:
    supervisor = ProcessId.read(runtime / RUN_PID)
    if supervisor is not None and supervisor.is_ours():
        return True
    return active_unit(runtime) is not None


def _ended(settings: Settings) -> str:
    return f"instance {settings.instance} was ended meanwhile: there is nothing to upgrade"


async def _until_ready(settings: Settings, before: ProcessId | None) -> None:
    """Return once another agent than that of before answers. Raises TurnoutError."""
    agent_file = settings.runtime / AGENT_PID
    try:
        async with asyncio.timeout(AGENT_READY_S), Client(settings.api_socket) as api:
            while _is_up(settings.runtime):
                if ProcessId.read(agent_file) not in (None, before):
                    try:
                        await api.status()
                    except (ApiError, OSError):
                        pass
                    else:
                        return
                await asyncio.sleep(_LOOK_PAUSE_S)
    except TimeoutError as error:
        raise TurnoutError(
            f"the programs are swapped and steer, but the agent does not answer after "
            f"{AGENT_READY_S:.0f} s; the log of `turnout run` says why. `turnout upgrade` of the "
            "installation before goes back"
        ) from error
    raise TurnoutError(_ended(settings))
