"""Real calls through the kernel path: aiortc in the clients' namespace, native XDP on the veth."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from system.lab import WHIP_URL, Lab, counted, wait_until
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES, INTERFACE, run_in_namespace
from turnout.calling import Call, CallReport, place_calls

pytestmark = pytest.mark.privileged


def assert_verdicts_add_up(counters: dict[str, int]) -> None:
    verdicts = [
        count
        for name, count in counters.items()
        if name.startswith(("steered__", "drop__", "pass__"))
    ]
    assert sum(verdicts) == counters["received"]


def test_programs_are_attached_native(lab: Lab) -> None:
    (interface,) = lab.edge.status()["interfaces"]
    assert (interface["name"], interface["mode"]) == (INTERFACE, "native")
    # 1 is XDP_ATTACHED_DRV (if_link.h): what the kernel says, not what the product says.
    assert lab.namespaces.edge_link()["xdp"]["mode"] == 1


@pytest.mark.parametrize("family", [4, 6])
def test_call_is_steered_in_the_kernel_and_hears_its_tone(lab: Lab, family: int) -> None:
    before = lab.edge.counters()
    report = lab.place_call(duration=3, tone=600, family=family)
    assert report.error is None
    vip = EDGE_ADDRESSES[family]
    assert report.remote == (f"[{vip}]:3478" if family == 6 else f"{vip}:3478")
    assert report.media.received >= 100
    status = lab.edge.status()
    moved = counted(before, status["counters"])
    # The claim of the whole product: no datagram of the call came to a socket on that port.
    assert status["shared_port_datagrams"] == 0
    assert status["verdicts_add_up"] is True
    assert_verdicts_add_up(status["counters"])
    assert moved["steered__stun_request"] >= 2
    assert moved["steered__dtls"] >= 2
    assert moved["steered__rtp"] >= report.media.sent
    assert moved["returned__rewritten"] >= report.media.received
    assert {name: count for name, count in moved.items() if name.startswith("drop__")} == {}


def test_two_calls_go_to_two_transceivers_and_status_shows_them(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as background:
        calling = background.submit(
            lab.in_client, lambda: place_calls(WHIP_URL, 2, duration=6, tone=700)
        )
        try:
            wait_until(lambda: _sessions_by_owner(lab) == [1, 1], "a session on each transceiver")
            before = {owner["slot"]: owner for owner in lab.edge.status()["owners"]}
            wait_until(
                lambda: all(
                    owner["steered_packets"] >= before[owner["slot"]]["steered_packets"] + 50
                    for owner in lab.edge.status()["owners"]
                ),
                "50 more packets to each owner",
            )
            shown = lab.edge.run_command("status", "--instance", lab.edge.instance, "--json")
            human = lab.edge.run_command("status", "--instance", lab.edge.instance)
        finally:
            reports = calling.result()
    assert [report.error for report in reports] == [None, None]
    picture = json.loads(shown.stdout)
    assert [owner["sessions"] for owner in picture["owners"]] == [1, 1]
    assert picture["verdicts_add_up"] is True
    assert human.returncode == shown.returncode == 0
    for word in ("transceiver", "active", "20000", "20001", INTERFACE, "native"):
        assert word in human.stdout
    wait_until(lambda: _sessions_by_owner(lab) == [0, 0], "both sessions gone after DELETE")


def test_call_whose_client_changes_address_goes_on(lab: Lab) -> None:
    async def roam() -> tuple[CallReport, int, int]:
        async with Call(WHIP_URL, tone=500, family=4) as call:
            await call.connect()
            await call.talk(1.5)
            heard_before = call.detector.tone_windows
            await _move(call, CLIENT_ADDRESSES[4][1])
            heard_at_move = call.detector.tone_windows
            await call.talk(2.5)
            heard_after = call.detector.tone_windows - heard_at_move
        call.judge_tone()
        return call.report(), heard_before, heard_after

    before = lab.edge.counters()
    report, heard_before, heard_after = lab.in_client(roam)
    assert heard_before >= 5
    # 25 windows of 100 ms were talked; what is missing is the move and the jitter buffer.
    assert heard_after >= 12
    assert report.local is not None
    # The pair keeps its name in the client's books; the kernel saw a second flow.
    assert counted(before, lab.edge.counters())["flow__learned"] == 2


def test_call_command_prints_a_report_and_exits_0(lab: Lab) -> None:
    namespace = f"--net=/run/netns/{lab.namespaces.client}"
    done = subprocess.run(
        [
            *("nsenter", namespace, sys.executable, "-m", "turnout"),
            *("call", WHIP_URL, "--duration", "2", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = json.loads(done.stdout)["calls"]
    assert report["ok"] is True
    assert report["set_up"]["total_ms"] > 0


def test_metrics_show_every_kernel_counter(lab: Lab) -> None:
    def scrape() -> str:
        with urllib.request.urlopen("http://127.0.0.1:9478/metrics", timeout=10) as reply:
            return str(reply.read().decode())

    lines = run_in_namespace(lab.namespaces.edge, scrape).splitlines()
    for name in lab.edge.counters():
        family, _, reason = name.partition("__")
        wanted = f'reason="{reason}"' if reason else family
        assert any(family in line and wanted in line for line in lines), name


def _sessions_by_owner(lab: Lab) -> list[int]:
    return [owner["sessions"] for owner in lab.edge.status()["owners"]]


async def _move(call: Call, address: str) -> None:
    """Give the call's nominated pair a socket at another address, and nominate it from there.

    What a client does whose network has changed: the old socket hears nothing any more, and a
    check with USE-CANDIDATE leaves from the new one.
    """
    ice: Any = call.peer.ice._connection
    (pair,) = ice._nominated.values()
    old = pair.protocol.transport
    await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: pair.protocol, local_addr=(address, 0)
    )
    old.set_protocol(asyncio.DatagramProtocol())
    old.close()
    await pair.protocol.request(
        ice.build_request(pair, nominate=True),
        pair.remote_addr,
        integrity_key=ice.remote_password.encode(),
    )
