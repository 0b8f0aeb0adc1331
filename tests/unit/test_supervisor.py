"""What a run would change, starts, waits for and says; the real thing is in the system tier."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from turnout.kernel import host
from turnout.settings import Settings
from turnout.supervisor import describe, missing_transceivers, plan, transceiver_arguments
from turnout.takedown import HostChanges, check_namespace, end_children, instances

SETTINGS = Settings(
    interfaces=("eth0",),
    vips=(ip_address("192.0.2.2"), ip_address("2001:db8::2")),
    transceivers=2,
    xdp_mode="native",
    local=True,
)


def test_plan_names_every_change() -> None:
    text = "\n".join(plan(SETTINGS))

    for part in (
        "/run/turnout/default",
        "/sys/fs/bpf/turnout/default/abi",
        "ip_local_reserved_ports",
        "bind UDP port 3478 on 192.0.2.2, 2001:db8::2",
        "attach to eth0: XDP (native mode)",
        "attach to lo: XDP (generic mode)",
        "2 transceivers on lanes 20000-20001",
        "http://0.0.0.0:8080",
        "http://127.0.0.1:9478",
    ):
        assert part in text


def test_plan_without_transceivers_starts_none() -> None:
    assert "start" not in "\n".join(plan(SETTINGS.replace(transceivers=0)))


def test_transceiver_arguments_are_its_command_line() -> None:
    assert transceiver_arguments(SETTINGS.replace(transceiver_user="4711"), 1) == [
        "-m",
        "turnout.transceiver",
        "--slot",
        "1",
        "--lane",
        "20001",
        "--vip",
        "192.0.2.2",
        "--vip",
        "2001:db8::2",
        "--control",
        "/run/turnout/default/transceiver-1.sock",
        "--user",
        "4711:4711",
        "--app",
        "echo",
        "--log-level",
        "info",
    ]


@pytest.mark.parametrize(
    ("owners", "missing"),
    [
        ([], [0, 1]),
        ([(0, "active")], [1]),
        ([(0, "active"), (1, "down")], [1]),
        ([(0, "active"), (1, "active"), (5, "down")], []),
    ],
)
def test_missing_transceivers_are_those_not_active(
    owners: list[tuple[int, str]], missing: list[int]
) -> None:
    picture = {
        "owners": [{"slot": slot, "state": state} for slot, state in owners],
        "confirmed_owners": [slot for slot, _ in owners],
    }

    assert missing_transceivers(SETTINGS, picture) == missing


def test_missing_transceivers_adopted_owner_that_has_not_spoken_is_missing() -> None:
    picture = {
        "owners": [{"slot": slot, "state": "active"} for slot in (0, 1)],
        "confirmed_owners": [1],
    }

    assert missing_transceivers(SETTINGS, picture) == [0]


def test_describe_says_the_mode_that_was_got_and_why() -> None:
    picture: dict[str, Any] = {
        "interfaces": [{"name": "eth0", "mode": "generic", "note": "native mode refused"}],
        "addresses": [
            {"vip": "192.0.2.2", "advertised": ["192.0.2.2"], "present": True},
            {"vip": "10.0.0.2", "advertised": ["198.51.100.2"], "present": True},
        ],
    }

    lines = describe(SETTINGS, picture)

    assert lines[0] == "eth0: XDP in generic mode, egress filter (native mode refused)"
    assert lines[1] == "VIP 192.0.2.2, UDP port 3478"
    assert lines[2] == "VIP 10.0.0.2, UDP port 3478, advertised as 198.51.100.2"
    assert lines[-1] == "instance default is ready"


def test_host_changes_written_and_read_are_the_same(tmp_path: Path) -> None:
    changes = HostChanges(4026531840, mounted_bpffs=True, reserved_ports="20000-20999")

    changes.write(tmp_path)

    assert HostChanges.read(tmp_path) == changes


def test_host_changes_never_written_are_none(tmp_path: Path) -> None:
    assert HostChanges.read(tmp_path) is None


def test_check_namespace_of_a_namespace_that_is_gone_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(runtime_root=tmp_path)
    settings.runtime.mkdir()
    HostChanges(network_namespace=1).write(settings.runtime)

    check_namespace(settings)

    assert "its network namespace is gone" in caplog.text


def test_check_namespace_of_our_own_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(runtime_root=tmp_path)
    settings.runtime.mkdir()
    HostChanges(host.network_namespace()).write(settings.runtime)

    check_namespace(settings)

    assert caplog.text == ""


def test_end_children_pid_files_of_nobody_end_nothing(tmp_path: Path) -> None:
    settings = Settings(runtime_root=tmp_path)
    settings.runtime.mkdir()
    (settings.runtime / "agent.pid").write_text("broken")

    assert end_children(settings) == []


def test_instances_are_found_by_runtime_directory_and_by_pins(tmp_path: Path) -> None:
    settings = Settings(runtime_root=tmp_path / "run", bpffs=tmp_path / "bpf")
    (tmp_path / "run" / "one").mkdir(parents=True)
    (tmp_path / "bpf" / "turnout" / "two").mkdir(parents=True)

    assert instances(settings) == ["one", "two"]
