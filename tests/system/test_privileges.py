"""What the processes of an edge may do, and that it is enough for all that they have to do."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.lab import Lab, open_lab, wait_until
from system.namespaces import EDGE_ADDRESSES, INTERFACE, command
from turnout.accounts import find_account
from turnout.kernel.facts.processes import read_process
from turnout.privileges import CAPABILITIES
from turnout.signaling.policy import TlsFiles
from unit.certificates import write_certificate

pytestmark = pytest.mark.privileged

THIRD = "10.77.0.8"
SESSIONS = 1000
NONE = {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("privileges") / "turnout.toml"
    write_vips(path, *EDGE_ADDRESSES.values())
    return path


@pytest.fixture(scope="module")
def lab(config: Path) -> Iterator[Lab]:
    """Return a laboratory whose edge has its VIPs from the settings file."""
    with open_lab() as running:
        running.edge.where = ["--config", str(config), "--interface", INTERFACE]
        running.edge.start()
        yield running
        assert running.edge.stop() == 0
        assert running.edge.leftovers() == []


def write_vips(path: Path, *vips: str) -> None:
    path.write_text(f"vip = {json.dumps(vips)}\n")


def threads_of(pid: int) -> list[dict[str, str]]:
    """Return /proc/<pid>/status of every thread, by field."""
    return [
        dict(re.findall(r"^(\w+):[ \t]*(.*)$", path.read_text(), re.MULTILINE))
        for path in Path(f"/proc/{pid}/task").glob("*/status")
    ]


def capabilities_of(thread: dict[str, str]) -> dict[str, int]:
    return {name: int(thread[name], 16) for name in NONE}


def mask_of(*names: str) -> int:
    return sum(1 << CAPABILITIES[name] for name in names)


def transceivers_of(lab: Lab) -> list[int]:
    return [pid for name, pid in lab.edge.pids().items() if name.startswith("transceiver-")]


def hear_a_call(lab: Lab) -> None:
    assert lab.place_call(duration=1.5).error is None


def attached(lab: Lab) -> bool:
    return "xdp" in lab.namespaces.edge_link() and "turnout:" in lab.namespaces.edge_filters()


def require_reduced_agent(lab: Lab) -> None:
    """Read the sets of every thread: one that kept more would be as good as all of them."""
    mask = mask_of("CAP_BPF", "CAP_NET_ADMIN")
    for thread in threads_of(lab.edge.pids()["agent"]):
        wanted = {**NONE, "CapPrm": mask, "CapEff": mask, "CapBnd": mask}
        assert capabilities_of(thread) == wanted, thread["Name"]
        assert thread["NoNewPrivs"] == "1"


def test_transceivers_are_nobody_special_and_may_nothing(lab: Lab) -> None:
    account = find_account("")
    pids = transceivers_of(lab)
    assert len(pids) == 2
    for pid in pids:
        for thread in threads_of(pid):
            assert set(thread["Uid"].split()) == {str(account.uid)}
            assert set(thread["Gid"].split()) == {str(account.gid)}
            assert thread["Groups"].strip() == ""
            assert capabilities_of(thread) == NONE
            assert thread["NoNewPrivs"] == "1"
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert b"\0HOME=" not in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        # proc(5): of a process that is not dumpable the entries are root's.
        assert Path(f"/proc/{pid}/maps").stat().st_uid == 0
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft, hard = re.findall(r"^Max open files\s+(\d+)\s+(\d+)", limits, re.MULTILINE)[0]
        assert soft == hard


def test_control_sockets_are_the_agents_alone(lab: Lab) -> None:
    assert lab.edge.runtime.stat().st_mode & 0o777 == 0o700
    for path in lab.edge.runtime.glob("transceiver-*.sock"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o700)
    for path in lab.edge.runtime.iterdir():
        assert path.stat().st_uid == 0


def test_lane_sockets_have_their_large_buffers(lab: Lab) -> None:
    # Asked for by force, which an unprivileged process may not: they are open before it is one.
    inside = ("ip", "netns", "exec", lab.namespaces.edge)
    shown = command(*inside, "ss", "-uanmH", "sport", "=", "20000")
    sizes = [int(size) for size in re.findall(r"skmem:\(r\d+,rb(\d+)", shown)]
    assert len(sizes) == 2, "one a VIP"
    assert all(size >= 4 << 20 for size in sizes)


def test_reduced_agent_can_do_all_its_work(lab: Lab, config: Path) -> None:
    require_reduced_agent(lab)
    hear_a_call(lab)

    # Sweep: the flows of that call are ended.
    ended = lab.edge.counters()["swept__ended"]
    wait_until(lambda: lab.edge.counters()["swept__ended"] > ended, "the sweep", 40)

    # Attach: the interface goes, its programs with it, and another comes.
    command("ip", "-n", lab.namespaces.edge, "link", "del", INTERFACE)
    lab.namespaces.join()
    wait_until(lambda: attached(lab), "attached again", 30)
    hear_a_call(lab)

    # Reload: a VIP more, whose shared port is bound and which stands in the map.
    command("ip", "-n", lab.namespaces.edge, "address", "add", f"{THIRD}/24", "dev", INTERFACE)
    write_vips(config, *EDGE_ADDRESSES.values(), THIRD)
    lab.edge.reload()
    wait_until(lambda: THIRD in served(lab), "the VIP")

    # Adopt: the owners of the killed agent are there for the next one, which attaches in place.
    owner = lab.edge.api("POST", "/owners", {"lane": 20500})
    killed = lab.edge.pids()["agent"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: answers(lab) and lab.edge.pids()["agent"] != killed, "the next agent", 30)
    adopted = {one["slot"]: one["generation"] for one in lab.edge.status()["owners"]}
    assert adopted[owner["slot"]] == owner["generation"]
    require_reduced_agent(lab)
    hear_a_call(lab)
    lab.edge.api("DELETE", f"/owners/{owner['slot']}")


def served(lab: Lab) -> list[str]:
    return [str(one["vip"]) for one in lab.edge.status()["addresses"]]


def answers(lab: Lab) -> bool:
    try:
        return bool(lab.edge.status()["interfaces"])
    except (OSError, KeyError, ValueError):
        return False


def test_agent_with_a_thousand_sessions_is_small_and_has_no_compiler(lab: Lab) -> None:
    owner = lab.edge.api("POST", "/owners", {"lane": 20501})
    for number in range(SESSIONS):
        body = {"ufrag": f"many{number:04}", "pwd": "q" * 24, "owner": owner["slot"]}
        lab.edge.api("POST", "/sessions", body)
    agent = read_process("agent", lab.edge.pids()["agent"])
    assert not agent.has_compiler
    assert agent.private_bytes <= 64 << 20, f"{agent.private_bytes >> 20} MB"
    lab.edge.api("DELETE", f"/owners/{owner['slot']}")


def test_what_settings_ask_for_beside_is_kept_too(bare_lab: Lab, tmp_path: Path) -> None:
    """A port below 1024, a key that is another user's, and transceivers as a uid of no user."""
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write_certificate(files, 1, address=EDGE_ADDRESSES[4])
    files.key.chmod(0o600)
    os.chown(files.key, 4711, 4711)
    edge = bare_lab.edge
    flags = ("--tls-cert", str(files.cert), "--tls-key", str(files.key))
    edge.start("--http", "0.0.0.0:443", *flags, "--transceiver-user", "4711")

    wanted = mask_of("CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_DAC_READ_SEARCH")
    agent = edge.pids()["agent"]
    assert {int(thread["CapEff"], 16) for thread in threads_of(agent)} == {wanted}
    for pid in transceivers_of(bare_lab):
        assert {thread["Uid"] for thread in threads_of(pid)} == {"\t".join(["4711"] * 4)}
    write_certificate(files, 2, address=EDGE_ADDRESSES[4])
    os.chown(files.key, 4711, 4711)
    wait_until(lambda: edge.said("certificate read anew"), "the new certificate", 30)
    assert edge.stop() == 0


def test_doctor_shows_the_processes(lab: Lab) -> None:
    done = lab.edge.run_command(
        "doctor", "--json", "--instance", lab.edge.instance, "--bpffs", str(lab.edge.bpffs)
    )
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["process agent"]["level"] == "ok"
    assert found["process agent"]["what"].startswith("root, CAP_NET_ADMIN CAP_BPF, ")
    assert found["process agent"]["what"].endswith("no compiler resident")
    user = find_account("").name
    for slot in (0, 1):
        assert found[f"process transceiver-{slot}"]["level"] == "ok"
        assert found[f"process transceiver-{slot}"]["what"].startswith(f"{user}, no capability, ")
    assert found["process run"]["what"].startswith("root, every capability, ")
