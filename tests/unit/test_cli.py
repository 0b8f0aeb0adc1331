"""The command line: exit codes, one-line errors, help that teaches, the table of `status`."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from turnout.cli.drain import find_slot, parse_duration, parse_owner
from turnout.cli.main import COMMANDS, main
from turnout.cli.status import format_picture
from turnout.errors import SettingsError, TurnoutError
from turnout.settings.file import SettingsFile


def run(*arguments: str) -> int:
    """Return the exit code, also where argparse ends the process."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture
def picture() -> dict[str, Any]:
    return {
        "instance": "default",
        "version": "0.1.0",
        "agent": True,
        "interfaces": [{"name": "eth0", "mode": "native", "mtu": 1500, "egress": True, "note": ""}],
        "vips": ["192.0.2.2"],
        "shared_port": 3478,
        "lanes": [20000, 20999],
        "owners": [
            {
                "slot": 0,
                "generation": 1,
                "state": "active",
                "lane": 20000,
                "kind": "transceiver",
                "sessions": 12,
                "steered_packets": 3456,
                "returned_packets": 3000,
            }
        ],
        "counters": {"received": 3460, "steered__rtp": 3456, "drop__no_flow": 4, "drop__empty": 0},
        "verdicts_add_up": True,
        "shared_port_datagrams": 0,
    }


def test_main_without_command_prints_help_and_ends_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2

    assert "turnout run --local" in capsys.readouterr().out


def test_main_unknown_command_ends_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fly") == 2

    assert "invalid choice: 'fly'" in capsys.readouterr().err


def test_main_version_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0

    assert capsys.readouterr().out.startswith("turnout 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0

    assert f"usage: turnout {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "down", "status", "drain", "config"])
def test_help_of_our_commands_has_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command, "--help")

    assert "examples:" in capsys.readouterr().out


def test_help_lists_no_command_that_only_run_starts(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")

    output = capsys.readouterr().out
    assert "loader" not in output
    assert "SUPPRESS" not in output


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("vip x: no"), 2), (TurnoutError("it broke"), 1)]
)
def test_main_error_is_one_line_and_its_exit_code(
    error: Exception,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_args: object) -> int:
        raise error

    monkeypatch.setattr(import_module("turnout.cli.down"), "run", fail)

    assert run("down") == code

    assert capsys.readouterr().err == f"turnout down: {error}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shared-port", "0"), "shared-port 0: must be a port"),
        (("--lanes", "9"), "lanes '9': must be FIRST-LAST"),
        (("--vip", "nowhere"), "vip 'nowhere': must be an IPv4 or IPv6 address"),
        (("--transceivers", "many"), "transceivers 'many': must be a whole number"),
        (("--xdp-mode", "fast"), "xdp-mode fast: must be generic or native"),
        (("--instance", "."), "instance '.': must be"),
        (("--http", "here"), "http 'here': must be ADDRESS:PORT"),
        (("--drain-on-stop", "100000"), "drain-on-stop 100000: must be 0 to 86400 seconds"),
    ],
)
def test_run_wrong_flag_ends_2_with_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", "--dry-run", *arguments) == 2

    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("0", 0)]
)
def test_parse_duration_reads_seconds_minutes_and_hours(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("drain", "0", "--deadline", "soon"), "'soon': must be a time like 90s, 10m or 2h"),
        (("drain", "0", "--deadline", "-1s"), "--deadline"),
        (("drain", "0", "--deadline", "169h"), "'169h': must be a week at most"),
        (("drain", "0", "--deadline", "²h"), "'²h': must be a time"),
        (("drain", "east"), "'east': must be an owner's slot"),
        (("drain", "0.1.2"), "'0.1.2': must be an owner's slot"),
        (("undrain",), "OWNER"),
    ],
)
def test_drain_wrong_argument_ends_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2

    assert message in capsys.readouterr().err


async def test_find_slot_of_another_generation_is_refused() -> None:
    class Api:
        async def owners(self) -> list[dict[str, int]]:
            return [{"slot": 0, "generation": 4}, {"slot": 1, "generation": 1}]

    api: Any = Api()
    assert [await find_slot(api, parse_owner(text)) for text in ("0", "0.4", "7.1")] == [0, 0, 7]
    with pytest.raises(TurnoutError, match=r"owner 0\.3 has gone: its slot is owner 0\.4's now"):
        await find_slot(api, parse_owner("0.3"))


def test_drain_that_is_left_with_ctrl_c_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def leave(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("turnout.cli.drain._drain", leave)
    assert run("drain", "0.3") == 1

    assert "owner 0.3 stays drained until `turnout undrain 0.3`" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_drain_without_an_edge_says_how_to_start_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "0.3", "--runtime-root", str(tmp_path), "--instance", "east") == 1

    assert "no agent runs for instance east" in capsys.readouterr().err


def test_status_tells_of_drains(picture: dict[str, Any]) -> None:
    drain = {"slot": 0, "sessions": 12, "seconds_left": 560, "ended": "", "sessions_ended": 0}
    picture["drains"] = [
        drain,
        drain | {"slot": 1, "ended": "deadline", "sessions_ended": 3},
        drain | {"slot": 2, "ended": "empty", "seconds_left": 0},
    ]

    lines = format_picture(picture)

    assert "owner 0: drains, 12 sessions left, ended in 9 min 20 s" in lines
    assert "owner 1: drained, the deadline ended 3 sessions" in lines
    assert "owner 2: drained, empty" in lines


def test_run_interface_that_is_not_there_ends_2(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--open", "--interface", "tn-nothing", "--vip", "192.0.2.2")
    assert run("run", "--dry-run", *arguments) == 2

    assert "tn-nothing" in capsys.readouterr().err


def test_run_dry_run_prints_the_plan_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    arguments = ("--local", "--vip", "127.0.0.1", "--open", "--runtime-root", str(root))

    assert run("run", "--dry-run", *arguments) == 0

    assert "attach to lo" in capsys.readouterr().out
    assert not root.exists()


def test_status_of_nothing_that_runs_ends_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--runtime-root", str(tmp_path), "--bpffs", str(tmp_path))

    assert run("status", *arguments) == 1

    errors = capsys.readouterr().err
    assert "no agent runs for instance default" in errors
    assert errors.count("\n") == 1


def test_status_json_of_an_agent_is_the_picture(
    picture: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ask(_settings: object) -> dict[str, Any]:
        return picture

    monkeypatch.setattr("turnout.cli.status._ask_agent", ask)

    assert run("status", "--json", "--runtime-root", str(tmp_path)) == 0

    assert json.loads(capsys.readouterr().out) == picture


def test_format_picture_shows_owner_mode_and_sum(picture: dict[str, Any]) -> None:
    text = "\n".join(format_picture(picture))

    assert "interface eth0: XDP native, MTU 1500" in text
    assert "VIP 192.0.2.2, UDP port 3478" in text
    assert "0.1    transceiver  active  20000        12     3456      3000" in text
    assert "received 3460 = sum of verdicts 3460" in text


def test_format_picture_tells_what_clients_are_told_of_each_vip(picture: dict[str, Any]) -> None:
    picture["addresses"] = [
        {"vip": "10.0.0.1", "advertised": ["198.51.100.1"], "present": True},
        {"vip": "10.0.0.2", "advertised": [], "present": True},
        {"vip": "10.0.0.3", "advertised": [], "present": False},
        {"vip": "192.0.2.2", "advertised": ["192.0.2.2"], "present": True},
    ]
    picture["warnings"] = ["VIP 10.0.0.9 is a private address"]

    lines = format_picture(picture)

    assert "VIP 10.0.0.1, UDP port 3478, advertised as 198.51.100.1" in lines
    assert "VIP 10.0.0.2, UDP port 3478: its calls go on, new clients are not told of it" in lines
    gone = "VIP 10.0.0.3, UDP port 3478: ADDRESS GONE from this host, its calls wait for it"
    assert gone in lines
    assert "VIP 192.0.2.2, UDP port 3478" in lines
    assert "WARNING: VIP 10.0.0.9 is a private address" in lines


@pytest.mark.parametrize(
    ("text", "instance"), [('instance = "two"\n', "two"), ("instance = 7\nbad = 1\n", "default")]
)
def test_status_asks_the_instance_of_the_file_however_broken_that_is(
    text: str,
    instance: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(text)
    read = SettingsFile.read_if_there
    monkeypatch.setattr(SettingsFile, "read_if_there", lambda: read(path))

    assert run("status", "--runtime-root", str(tmp_path), "--bpffs", str(tmp_path)) == 1

    assert f"no agent runs for instance {instance}" in capsys.readouterr().err


def test_format_picture_leaves_out_counters_of_zero(picture: dict[str, Any]) -> None:
    text = "\n".join(format_picture(picture))

    assert "drop no_flow" in text
    assert "empty" not in text


def test_format_picture_sum_that_is_wrong_is_said_loudly(picture: dict[str, Any]) -> None:
    picture["counters"]["received"] = 3461
    picture["verdicts_add_up"] = False

    text = "\n".join(format_picture(picture))

    assert "received 3461, BUT the sum of verdicts is 3460" in text


def test_format_picture_without_agent_says_that_the_kernel_steers_on(
    picture: dict[str, Any],
) -> None:
    picture["agent"] = False
    del picture["shared_port_datagrams"]

    text = "\n".join(format_picture(picture))

    assert "AGENT DOWN, kernel steering on" in text
    assert "shared port's socket" not in text


def test_format_picture_attached_nowhere_says_so(picture: dict[str, Any]) -> None:
    picture["interfaces"] = []
    picture["owners"] = []

    text = "\n".join(format_picture(picture))

    assert "interface: NONE, nothing is steered" in text
    assert "no owners" in text
