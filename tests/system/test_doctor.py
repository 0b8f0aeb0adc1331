"""`turnout doctor` in real namespaces: what it says of a firewall is what happens to packets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.lab import Lab, open_lab
from system.namespaces import (
    EDGE_ADDRESSES,
    INTERFACE,
    command,
    run_in_namespace,
)
from system.stranger import NAME, attach_stranger

pytestmark = pytest.mark.privileged

LANE = 20007

# Each is the body of a default-drop input chain, then whether a client's packet reaches a lane.
INPUT_CHAINS = {
    "shared port only": ("udp dport 3478 accept", False),
    "lanes open": ("udp dport 20000-20999 accept", True),
    "named set": ("udp dport @lanes accept", True),
    "established only": ("ct state established,related accept", False),
    "invalid dropped, lanes open": ("ct state invalid drop; meta l4proto udp accept", True),
    "interface open": (f'iifname "{INTERFACE}" accept', True),
    "loopback open": ("iif lo accept", False),
    "verdict map": ("udp dport vmap { 20000-20999 : accept, 53 : drop }", True),
    "other ports refused first": ("udp dport != 20000-20999 reject; accept", True),
    "drop before accept": ("meta l4proto udp drop; accept", False),
    "jump": ("jump side; accept", False),
    "goto": ("goto side", False),
    "IPv4 only": (f"ip daddr {EDGE_ADDRESSES[4]} accept", True),
    "local destination": ("fib daddr type local accept", True),
    "concatenation": ("meta l4proto . th dport { udp . 20000-20999 } accept", True),
}


def nft(lab: Lab, text: str) -> None:
    command("nsenter", f"--net=/run/netns/{lab.namespaces.edge}", "nft", "-f", "-", stdin=text)


def examine(lab: Lab, *flags: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Run doctor on the edge's host; exit code, and findings by check."""
    done = lab.edge.run_command(
        *("doctor", "--json", "--interface", INTERFACE, "--vip", EDGE_ADDRESSES[4]),
        *("--instance", lab.edge.instance, "--bpffs", str(lab.edge.bpffs), *flags),
    )
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["ok"] is (done.returncode == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in answer["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def reaches_lane(lab: Lab) -> bool:
    """Send a datagram to a lane: no program is attached, so only a rule can stop it."""
    with lab.edge_socket(LANE) as lane, lab.client_socket() as client:
        lane.settimeout(0.3)
        client.sendto(b"hello", (EDGE_ADDRESSES[4], LANE))
        try:
            return lane.recv(100) == b"hello"
        except TimeoutError:
            return False


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with open_lab() as built:
        yield built


@pytest.fixture(autouse=True)
def no_rules(host: Lab) -> Iterator[None]:
    yield
    nft(host, "flush ruleset")


def host_changes(lab: Lab) -> dict[str, Any]:
    """What doctor must not touch."""
    sysctls = Path("/proc/sys/net/ipv4")
    return {
        "link": {k: v for k, v in lab.namespaces.edge_link().items() if k != "stats64"},
        "filters": lab.namespaces.edge_filters(),
        "pins": sorted(map(str, lab.edge.bpffs.rglob("*"))),
        "runtime": lab.edge.runtime.exists(),
        "reserved": run_in_namespace(
            lab.namespaces.edge, (sysctls / "ip_local_reserved_ports").read_text
        ),
        "rules": command(
            "nsenter", f"--net=/run/netns/{lab.namespaces.edge}", "nft", "list", "ruleset"
        ),
    }


def test_doctor_on_a_fit_host_passes_and_changes_nothing(host: Lab) -> None:
    before = host_changes(host)
    code, found = examine(host)
    assert code == 0, found
    assert [one["level"] for one in found["firewall"]] == ["ok"]
    assert host_changes(host) == before


@pytest.mark.parametrize(("body", "open_to_clients"), INPUT_CHAINS.values(), ids=INPUT_CHAINS)
def test_firewall_verdict_is_what_happens_and_the_mend_mends(
    host: Lab, body: str, open_to_clients: bool
) -> None:
    nft(
        host,
        f"""table inet filter {{
        set lanes {{ type inet_service; flags interval; elements = {{ 20000-20999 }}; }}
        chain side {{ udp dport 53 accept; meta l4proto udp drop; }}
        chain input {{ type filter hook input priority filter; policy drop;
            meta l4proto ipv6-icmp accept; {body}; }}
        }}""",
    )
    assert reaches_lane(host) is open_to_clients
    code, found = examine(host)
    levels = [one["level"] for one in found["firewall"]]
    assert (code, levels) == ((0, ["ok"]) if open_to_clients else (1, ["fail"]))
    if not open_to_clients:
        mend = found["firewall"][0]["mend"]
        assert mend.startswith("nft insert rule inet filter input")
        command("nsenter", f"--net=/run/netns/{host.namespaces.edge}", *mend.split())
        assert reaches_lane(host)
        assert examine(host)[0] == 0


def test_firewall_on_the_way_out_is_seen_and_mended(host: Lab) -> None:
    nft(
        host,
        "table ip out { chain output { type filter hook output priority 0; policy drop; }; }",
    )
    code, found = examine(host)
    assert code == 1
    (finding,) = found["firewall"]
    assert finding["mend"] == "nft insert rule ip out output udp sport 20000-20999 accept"
    command("nsenter", f"--net=/run/netns/{host.namespaces.edge}", *finding["mend"].split())
    assert examine(host)[0] == 0


def test_running_edge_is_fine_by_its_own_doctor(lab: Lab) -> None:
    # Without a flag: what the instance runs with is what is looked at.
    done = lab.edge.run_command("doctor", "--json", "--instance", lab.edge.instance)
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert "this instance's" in found[f"interface {INTERFACE}"]["what"]
    for check in ("shared port", "lanes", "port of --http", "port of --metrics"):
        assert found[check]["what"].endswith("held by this instance")


def test_another_instance_on_the_interface_is_named(lab: Lab) -> None:
    flags = ("--shared-port", "3479", "--lanes", "21000-21009", "--instance", "other")
    doors = ("--http", "127.0.0.1:8081", "--metrics", "127.0.0.1:9479")
    code, found = examine(lab, *flags, *doors)
    assert code == 1
    failed = [one["what"] for ones in found.values() for one in ones if one["level"] == "fail"]
    assert len(failed) == 1, failed
    assert failed[0].startswith(f"instance {lab.edge.instance} is attached")


def test_foreign_program_and_taken_ports_are_named(bare_lab: Lab) -> None:
    run_in_namespace(bare_lab.namespaces.edge, lambda: attach_stranger(INTERFACE))
    with bare_lab.edge_socket(3478), bare_lab.edge_socket(20999):
        code, found = examine(bare_lab)
    assert code == 1
    failed = {check for check, ones in found.items() if any(o["level"] == "fail" for o in ones)}
    assert failed == {f"interface {INTERFACE}", "shared port", "lanes"}
    whats = " ".join(one["what"] for one in found[f"interface {INTERFACE}"])
    assert repr(NAME) in whats
    assert "(pid " in found["shared port"][0]["what"]


def test_stacked_devices_and_a_missing_interface_are_named(bare_lab: Lab) -> None:
    edge = bare_lab.namespaces.edge
    command("ip", "-n", edge, "link", "add", "br0", "type", "bridge")
    command("ip", "-n", edge, "link", "set", INTERFACE, "master", "br0")
    command("ip", "-n", edge, "link", "set", "br0", "up")
    code, found = examine(bare_lab, "--interface", "br0", "--interface", "absent0")
    assert code == 1
    assert found["interface absent0"][0]["what"] == "does not exist"
    stacked = [one["level"] for one in found["interface br0"] if INTERFACE in one["what"]]
    assert stacked == ["fail"]


def test_lanes_among_ephemeral_ports_warn(bare_lab: Lab) -> None:
    code, found = examine(bare_lab, "--lanes", "40000-40009")
    assert code == 0
    assert [one["level"] for one in found["ephemeral ports"]] == ["warn"]


def test_bad_flag_is_refused_in_one_line(bare_lab: Lab) -> None:
    done = bare_lab.edge.run_command("doctor", "--lanes", "9-1")
    assert done.returncode == 2
    assert done.stderr.startswith("turnout doctor: lanes 9-1: ")
    assert done.stdout == ""
