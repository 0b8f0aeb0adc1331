"""docs/settings.md, held against the keys; and the command that shows them."""

import argparse
import json
import re
from pathlib import Path

import pytest

from turnout.cli import run as run_command
from turnout.cli.config import SECRET, shown_values
from turnout.cli.main import main
from turnout.settings import Settings
from turnout.settings.file import SettingsFile
from turnout.settings.keys import KEYS, Source
from turnout.settings.limits import Limits
from turnout.settings.tables import IceServer, UpstreamSettings

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text()
GIVEN = {key.file_name: key for key in KEYS.values() if key.source != Source.CHILDREN}
# | `key` | `--flag` | default | reload | what |
ROW = re.compile(r"^\| `(\w+)` \| (?:`(--[\w-]+)`)? ?\| (.*?) \| (\w+) \| (.*) \|$", re.MULTILINE)
ROWS = {row[0]: row for row in ROW.findall(DOCUMENT)}


def table_of(heading: str) -> list[str]:
    """Return the keys of the table of keys that follows a heading."""
    table = DOCUMENT.split(heading)[1].split("\n\n")[1]
    return re.findall(r"^\| `(\w+)` \| ", table, re.MULTILINE)


def test_every_key_has_its_row_in_order() -> None:
    assert list(ROWS) == list(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_row_tells_flag_default_and_reload_as_the_code_has_them(name: str) -> None:
    _, flag, default, reload, _ = ROWS[name]
    key = GIVEN[name]
    assert flag == (f"--{key.name}" if key.source == Source.BOTH else "")
    assert (reload != "no") == key.is_live
    in_words = {
        "interface": "the host's",
        "vip": "the host's",
        "transceivers": "one a CPU",
        "limits": "[below](#tables)",
    }
    value = key.value_in(Settings())
    wanted = in_words.get(name) or (
        "none"
        if value in ("", [])
        else f"`{json.dumps(value) if isinstance(value, bool) else value}`"
    )
    assert default == wanted


def test_every_key_that_flags_may_give_is_a_flag_of_run() -> None:
    subparsers = argparse.ArgumentParser().add_subparsers()
    run_command.add_parser(subparsers)
    flags = {flag for one in subparsers.choices["run"]._actions for flag in one.option_strings}
    wanted = {f"--{key.name}" for key in GIVEN.values() if key.source == Source.BOTH}
    assert wanted <= flags
    assert not {f"--{key.name}" for key in KEYS.values() if key.source == Source.FILE} & flags


def test_tables_are_told_key_by_key() -> None:
    assert table_of("\n`[[ice_server]]`:") == list(IceServer.__slots__)
    assert set(table_of("\n`[[upstream]]`:")) == set(UpstreamSettings.__slots__)


def test_limits_are_told_with_their_defaults() -> None:
    told = re.findall(
        r"^\| `(\w+)` \| `(\d+)` \| ", DOCUMENT.split("\n`[limits]`:")[1], re.MULTILINE
    )
    assert told == [(name, str(value)) for name, value in Limits().plain().items()]


def test_example_of_the_document_is_good(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path / "turnout.toml"
    path.write_text(example)

    settings = SettingsFile.read(path).parse({})

    assert settings.upstreams[0].name == "sfu"
    assert settings.ice_servers[0].is_turn


def test_config_check_prints_every_setting_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(
        'http_token = "0123456789abcdef"\nlog_level = "debug"\n'
        '[[ice_server]]\nurls = "turn:t.example"\nusername = "u"\ncredential = "hidden"\n'
    )

    assert main(["config", "check", str(path)]) == 0
    text = capsys.readouterr().out
    assert main(["config", "check", "--json", str(path)]) == 0
    values = json.loads(capsys.readouterr().out)

    assert list(values) == list(GIVEN)
    assert values["http_token"] == SECRET
    assert "0123456789abcdef" not in text
    assert "hidden" not in text
    lines = text.splitlines()
    assert lines[0] == f"# {path}"
    assert 'log_level = "debug"' in lines
    assert "shared_port = 3478  # default" in lines
    assert "vip = (the host's default)  # default" in lines


def test_shown_values_are_toml_that_gives_the_same_settings(tmp_path: Path) -> None:
    values = shown_values(Settings(log_json=True, shared_port=4000))
    limits = values.pop("limits")
    assert isinstance(limits, dict)
    values |= {f"limits.{name}": value for name, value in limits.items()}
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())

    path = tmp_path / "turnout.toml"
    path.write_text(text)

    assert SettingsFile.read(path).parse({}) == Settings(log_json=True, shared_port=4000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shared_port = 70000\n", ":1: shared_port 70000: must be a port from 1 to 65535"),
        ("sharedport = 1\n", ":1: sharedport: no such setting; did you mean 'shared_port'?"),
        ("", "http 0.0.0.0: a public address, and no token is asked for"),
        ('open = true\ntls_cert = "/x"\ntls_key = "/x"\n', ":2: tls_cert /x: cannot be read"),
    ],
)
def test_config_check_of_what_is_wrong_is_one_line_and_exit_code_2(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(text)

    assert main(["config", "check", str(path)]) == 2

    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", ["config", "run"])
def test_settings_file_that_is_not_there_ends_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check"] if command == "config" else ["--dry-run", "--config"]

    assert main([command, *arguments, str(tmp_path / "no.toml")]) == 2

    assert "no.toml: cannot be read" in capsys.readouterr().err
