"""Other ways to run an edge: generic mode, `lo` for the host itself, a second one, ended early."""

import os
import signal
from asyncio import run

import pytest

from system.lab import WHIP_URL, Lab, counted
from system.namespaces import INTERFACE, run_in_namespace
from turnout.calling import Call, place_call
from turnout.errors import CallError

pytestmark = pytest.mark.privileged


@pytest.mark.parametrize("family", [4, 6])
def test_generic_and_local_serves_clients_outside_and_on_the_host(
    bare_lab: Lab, family: int
) -> None:
    edge = bare_lab.edge
    edge.start("--xdp-mode", "generic", "--local", transceivers=1)
    modes = {one["name"]: one["mode"] for one in edge.status()["interfaces"]}
    assert modes == {INTERFACE: "generic", "lo": "generic"}
    before = edge.counters()
    outside = bare_lab.place_call(duration=1.5, family=family)
    on_host = run_in_namespace(
        bare_lab.namespaces.edge,
        lambda: run(place_call(WHIP_URL, duration=1.5, family=family)),
    )
    assert (outside.error, on_host.error) == (None, None)
    status = edge.status()
    assert counted(before, status["counters"])["flow__learned"] == 2
    assert status["shared_port_datagrams"] == 0
    assert edge.stop() == 0
    assert edge.leftovers() == []


def test_second_instance_on_the_same_interface_is_refused_and_the_first_serves_on(
    lab: Lab,
) -> None:
    other = ["--instance", "labsecond", "--shared-port", "3479", "--lanes", "21000-21999"]
    doors = ["--http", "127.0.0.1:8081", "--metrics", "127.0.0.1:9479"]
    done = lab.edge.run_command(*lab.edge.run_arguments(*other, *doors))
    assert done.returncode == 1
    assert INTERFACE in done.stderr
    assert "Traceback" not in done.stderr
    assert not (lab.edge.bpffs / "turnout" / "labsecond").exists()
    assert lab.place_call(duration=1.5).error is None


def test_down_ends_a_running_edge_and_leaves_nothing(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start()
    done = edge.run_command("down", "--instance", edge.instance, "--bpffs", str(edge.bpffs))
    assert done.returncode == 0, done.stderr
    edge.wait_gone()
    assert edge.leftovers() == []


def test_sigterm_in_mid_call_tells_the_client_and_leaves_nothing(bare_lab: Lab) -> None:
    edge = bare_lab.edge
    edge.start(transceivers=1)

    async def terminate() -> str:
        call = Call(WHIP_URL)
        try:
            await call.connect()
            os.kill(edge.pids()["run"], signal.SIGTERM)
            await call.talk(10)
        except CallError as error:
            return str(error)
        finally:
            with pytest.raises(CallError):  # nobody is there to take the DELETE
                await call.hang_up()
        return "nothing"

    assert "the other side ended the call" in bare_lab.in_client(terminate)
    edge.wait_gone()
    assert edge.leftovers() == []
