"""Addresses, links and settings that come and go under living calls: what is good goes on."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.lab import Lab, open_running_lab, wait_until
from system.namespaces import EDGE_ADDRESSES, INTERFACE, command
from turnout.calling import Call, CallReport, place_call

pytestmark = pytest.mark.privileged

PREFIX = {4: 24, 6: 64}
SECOND = "10.77.0.9"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a laboratory whose WHIP door is at both IP versions: either may lose its address."""
    with open_running_lab("--http", "[::]:8080") as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text("")
    return path


@pytest.fixture
def configured_lab(bare_lab: Lab, config: Path) -> Iterator[Lab]:
    """Return a laboratory whose edge, not started yet, reads the settings file."""
    bare_lab.edge.where = ["--config", str(config), "--interface", INTERFACE]
    yield bare_lab
    assert bare_lab.edge.stop() == 0
    assert bare_lab.edge.leftovers() == []


def url_of(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:8080/whip"


def ip(lab: Lab, *arguments: str) -> None:
    command("ip", "-n", lab.namespaces.edge, *arguments)


def change_address(lab: Lab, action: str, address: str, length: int) -> None:
    nodad = ("nodad",) if ":" in address and action == "add" else ()
    ip(lab, "address", action, f"{address}/{length}", "dev", INTERFACE, *nodad)


def state_of(lab: Lab, vip: str) -> dict[str, Any]:
    shown: dict[str, dict[str, Any]] = {one["vip"]: one for one in lab.edge.status()["addresses"]}
    return shown.get(vip, {"advertised": []})


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll in the clients' event loop, which has calls to keep going."""
    await asyncio.to_thread(wait_until, condition, what, 20.0)


async def hear_again(call: Call) -> None:
    """Wait until the tone is heard again, a second of it."""
    heard = call.detector.tone_windows
    await until(lambda: call.detector.tone_windows >= heard + 10, "the tone")


@pytest.mark.parametrize(("kept", "lost"), [(4, 6), (6, 4)])
def test_address_gone_and_back_in_mid_call_costs_the_other_vip_nothing(
    lab: Lab, kept: int, lost: int
) -> None:
    vip, url = EDGE_ADDRESSES[lost], url_of(EDGE_ADDRESSES[kept])

    async def lose_and_regain() -> tuple[CallReport, list[str]]:
        async with (
            Call(url, tone=500, family=kept) as good,
            Call(url, tone=800, family=lost) as cut,
        ):
            await good.connect()
            await cut.connect()
            await good.talk(1)
            change_address(lab, "del", vip, PREFIX[lost])
            await until(lambda: not state_of(lab, vip)["present"], "the address is gone")
            # A new client is told of the other VIP alone.
            async with Call(url, tone=600) as meanwhile:
                await meanwhile.connect()
                ice: Any = meanwhile.peer.ice._connection
                seen = [candidate.host for candidate in ice.remote_candidates]
            change_address(lab, "add", vip, PREFIX[lost])
            await until(lambda: state_of(lab, vip)["advertised"] == [vip], "it is back")
            # The call that was cut goes on: its flow, its sockets and its session are still there.
            await hear_again(cut)
            await good.talk(1)
        good.judge_tone()
        return good.report(), seen

    report, seen = lab.in_client(lose_and_regain)

    assert (report.media.lost_out, report.media.lost_back) == (0, 0)
    assert report.media.sent >= 100
    assert seen == [EDGE_ADDRESSES[kept]]
    assert lab.edge.said(f"VIP {vip}: the host lost this address")
    again = lab.in_client(lambda: place_call(url, duration=1.5, family=lost))
    assert again.error is None


def test_agent_started_while_an_address_is_gone_serves_and_takes_it_when_it_is_back(
    lab: Lab,
) -> None:
    vip, url = EDGE_ADDRESSES[6], url_of(EDGE_ADDRESSES[4])
    change_address(lab, "del", vip, 64)
    try:
        before = lab.edge.pids()["agent"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: _answers_again(lab, before), "another agent")
        assert not state_of(lab, vip)["present"]
        assert lab.in_client(lambda: place_call(url, duration=1.5)).error is None
    finally:
        change_address(lab, "add", vip, 64)
    wait_until(lambda: state_of(lab, vip)["present"], "the address is back")
    assert lab.in_client(lambda: place_call(url, duration=1.5, family=6)).error is None


def _answers_again(lab: Lab, before: int) -> bool:
    try:
        picture = lab.edge.status()
    except OSError:
        return False
    active = [owner for owner in picture["owners"] if owner["state"] == "active"]
    return lab.edge.pids().get("agent") not in {None, before} and len(active) == 2


def test_link_down_and_up_in_mid_call_the_call_goes_on(lab: Lab) -> None:
    async def flap() -> None:
        async with Call(url_of(EDGE_ADDRESSES[4]), tone=700, family=4) as call:
            await call.connect()
            await call.talk(1)
            ip(lab, "link", "set", INTERFACE, "down")
            await until(lambda: lab.edge.said(f"{INTERFACE}: the link was set down"), "down")
            ip(lab, "link", "set", INTERFACE, "mtu", "1400", "up")
            await until(lambda: lab.edge.said(f"{INTERFACE}: MTU 1500, now 1400"), "up")
            await hear_again(call)

    lab.in_client(flap)
    # Setting a link down takes its IPv6 addresses away for good; this one comes back by hand.
    change_address(lab, "replace", EDGE_ADDRESSES[6], 64)
    wait_until(lambda: state_of(lab, EDGE_ADDRESSES[6])["present"], "the IPv6 address")
    assert lab.place_call(duration=1.5, family=6).error is None


def test_interface_that_is_removed_and_comes_back_is_attached_again_and_its_call_goes_on(
    lab: Lab,
) -> None:
    async def replace() -> None:
        async with Call(url_of(EDGE_ADDRESSES[4]), tone=700, family=4) as call:
            await call.connect()
            await call.talk(1)
            ip(lab, "link", "delete", INTERFACE)
            await until(lambda: lab.edge.status()["interfaces"] == [], "nothing is attached")
            await asyncio.to_thread(lab.namespaces.join)
            await until(lambda: _is_attached(lab), "attached again")
            await hear_again(call)

    lab.in_client(replace)
    assert lab.edge.said(f"{INTERFACE}: the interface is gone")
    assert lab.namespaces.edge_link()["xdp"]["mode"] == 1
    for family in (4, 6):
        assert lab.place_call(duration=1.5, family=family).error is None


def _is_attached(lab: Lab) -> bool:
    found = lab.edge.status()["interfaces"]
    return [(one["name"], one["egress"]) for one in found] == [(INTERFACE, True)]


def test_reload_moves_new_calls_to_another_vip_and_more_transceivers_and_loses_nothing(
    configured_lab: Lab, config: Path
) -> None:
    lab, first = configured_lab, EDGE_ADDRESSES[4]
    config.write_text(f'vip = "{first}"\nlog_level = "warning"\n')
    # A flag would win over the file.
    lab.edge.start("--xdp-mode", "native", transceivers=1)
    change_address(lab, "add", SECOND, 24)
    url = url_of(first)

    def write_and_reload(text: str) -> None:
        config.write_text(text)
        lab.edge.reload()

    async def reload_in_mid_call() -> tuple[CallReport, CallReport]:
        async with Call(url, tone=500) as call:
            await call.connect()
            await call.talk(1)
            write_and_reload(f'vip = "{SECOND}"\nlog_level = "info"\nshared_port = 4000\n')
            await until(lambda: state_of(lab, SECOND)["advertised"] == [SECOND], "the new VIP")
            later = await place_call(url, duration=1.5, tone=900)
            await call.talk(1)
        call.judge_tone()
        return call.report(), later

    before = lab.edge.pids()
    report, later = lab.in_client(reload_in_mid_call)

    assert (report.remote, later.remote) == (f"{first}:3478", f"{SECOND}:3478")
    assert later.error is None
    assert (report.media.lost_out, report.media.lost_back) == (0, 0)
    # What it serves still has calls; new clients are not told of it.
    assert state_of(lab, first) == {"vip": first, "advertised": [], "present": True}
    assert lab.edge.said("reload: applied vip, log_level; takes a restart: shared_port")
    assert lab.edge.pids() == before
    assert lab.edge.status()["verdicts_add_up"] is True


def test_reload_with_more_transceivers_starts_them(bare_lab: Lab, config: Path) -> None:
    edge = bare_lab.edge
    edge.where += ["--config", str(config)]
    arguments = edge.run_arguments("--dry-run")
    at = arguments.index("--transceivers")
    # Not as a flag, which would win over the file.
    edge.run_arguments = lambda *flags, **_: [*arguments[:at], *flags]  # type: ignore[method-assign]
    config.write_text("transceivers = 1\n")
    edge.start(transceivers=1)
    before = edge.pids()

    config.write_text("transceivers = 2\n")
    edge.reload()
    wait_until(lambda: len(edge.status()["owners"]) == 2, "a second owner")
    config.write_text("transceivers = 1\n")
    edge.reload()
    wait_until(lambda: edge.said("takes a restart: transceivers"), "fewer take a restart")

    assert {name: edge.pids()[name] for name in before} == before
    reports = [bare_lab.place_call(duration=1.5) for _ in range(2)]
    assert [report.error for report in reports] == [None, None]
    assert edge.stop() == 0
    assert edge.leftovers() == []


def test_default_vip_that_is_renumbered_is_followed(configured_lab: Lab) -> None:
    lab, old = configured_lab, EDGE_ADDRESSES[4]
    ip(lab, "address", "flush", "dev", INTERFACE, "scope", "global")
    change_address(lab, "add", old, 24)
    lab.edge.start("--xdp-mode", "native", transceivers=1)
    assert [one["vip"] for one in lab.edge.status()["addresses"]] == [old]

    # In another network, or it would go as a secondary address of the one that goes.
    change_address(lab, "add", SECOND, 25)
    change_address(lab, "del", old, 24)
    wait_until(lambda: lab.edge.status()["vips"] == [SECOND, old], "the new address")

    # The transceiver opens its socket there a moment later; until then the door says 503.
    reports = []

    def is_answered() -> bool:
        reports.append(lab.in_client(lambda: place_call(url_of(SECOND), duration=1.5)))
        return "503" not in (reports[-1].error or "")

    wait_until(is_answered, "a call to the new address")
    assert reports[-1].error is None
    assert reports[-1].remote == f"{SECOND}:3478"


def test_every_process_logs_one_json_object_a_line() -> None:
    with open_running_lab("--log-json", transceivers=1) as lab:
        assert lab.place_call(duration=1).error is None
        wait_until(lambda: lab.edge.said("is ready"), "it says that it is ready")
        entries = [json.loads(line) for line in lab.edge.log.read_text().splitlines()]
    assert {one["process"] for one in entries} >= {"run", "loader", "agent", "transceiver-0"}
    for one in entries:
        assert {"time", "process", "level", "logger", "message"} <= one.keys()
