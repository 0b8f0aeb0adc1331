"""The unit files: what systemd itself says of them, and that they name the edge they are for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from turnout.accounts import needed_capabilities
from turnout.cli.main import main
from turnout.errors import SettingsError
from turnout.settings import Settings
from turnout.units.files import build_units, service_name, transceiver_unit

# As `systemd-analyze security` counts, from 0 (sealed) to 10, in tenths; 5 and more is "exposed".
# The loader is the widest: it compiles, writes to /proc/sys and sees the processes of others.
EXPOSURE_MOST = {"turnout": 25, "loader": 40, "agent": 30, "transceiver": 30}


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Return the unit files of a default edge, a transceiver's with its slot."""
    assert main(["units", "--directory", str(tmp_path)]) == 0
    template = tmp_path / "turnout-transceiver@.service"
    shutil.copy(template, tmp_path / "turnout-transceiver@0.service")
    return sorted(tmp_path.glob("*[!@].service"))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which reads files here and starts nothing."""
    return subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def part_of(unit: Path) -> str:
    return re.sub(r"^turnout-|@.*$", "", unit.name.removesuffix(".service"))


def values_of(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_units_are_found_valid_by_systemd(units: list[Path]) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", *map(str, units))

    assert len(units) == 4
    assert (done.returncode, done.stdout) == (0, "")


def test_units_expose_little(units: list[Path]) -> None:
    for unit in units:
        threshold = f"--threshold={EXPOSURE_MOST[part_of(unit)]}"
        done = analyze("security", "--offline=true", "--no-pager", threshold, str(unit))

        assert done.returncode == 0, f"{unit.name}: {done.stdout.splitlines()[-1]}"


def test_units_have_no_placeholder_left() -> None:
    for name, text in build_units(Settings(), None).items():
        words = re.sub(r"@(system-service|privileged|resources)\b|transceiver@", "", text)
        assert "@" not in words, name


def test_agent_unit_allows_what_these_settings_take() -> None:
    settings = Settings(shared_port=443)

    (bound,) = values_of(
        build_units(settings, None)["turnout-agent.service"], "CapabilityBoundingSet"
    )

    assert needed_capabilities(settings) <= set(bound.split())
    assert "CAP_NET_BIND_SERVICE" in bound


def test_edge_unit_outlives_its_agent() -> None:
    edge = build_units(Settings(), None)["turnout.service"]

    # What is required and starts anew has what requires it started anew by systemd.
    assert values_of(edge, "Requires") == ["turnout-loader.service"]
    assert values_of(edge, "Wants") == ["network-online.target", "turnout-agent.service"]


def test_units_of_another_instance_name_it_everywhere() -> None:
    units = build_units(Settings(instance="two"), Path("/etc/turnout/two.toml"))

    assert set(units) == {
        "turnout-two.service",
        "turnout-two-loader.service",
        "turnout-two-agent.service",
        "turnout-two-transceiver@.service",
    }
    for text in units.values():
        assert all("--instance two" in line for line in values_of(text, "Exec(?:Start|Stop.*)"))
        assert not re.search(r"\bturnout(-agent|-loader)?\.service", text)
    (start,) = values_of(units["turnout-two-loader.service"], "ExecStart")
    assert start.endswith("--config /etc/turnout/two.toml")


def test_units_quote_what_systemd_would_read_otherwise(tmp_path: Path) -> None:
    config = tmp_path / "100% $HOME.toml"

    (start,) = values_of(build_units(Settings(), config)["turnout-loader.service"], "ExecStart")

    assert start.endswith("100%% $$HOME.toml'")


def test_units_leave_room_for_their_paths() -> None:
    settings = Settings(bpffs=Path("/srv/bpf"), runtime_root=Path("/srv/turnout"))

    units = build_units(settings, None)

    assert values_of(units["turnout-loader.service"], "ReadWritePaths") == ["/srv /srv/bpf"]
    assert values_of(units["turnout-agent.service"], "ReadWritePaths") == [
        "/srv/turnout/default /srv/bpf/turnout/default"
    ]
    assert "--runtime-root /srv/turnout" in units["turnout-agent.service"]


@pytest.mark.parametrize("instance", ["agent", "two-loader", "transceiver"])
def test_service_name_that_is_another_units_is_refused(instance: str) -> None:
    with pytest.raises(SettingsError, match="another name"):
        service_name(instance)


def test_transceiver_unit_is_an_instance_of_the_template() -> None:
    assert transceiver_unit("default", 3) == "turnout-transceiver@3.service"


def test_units_command_prints_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["units"]) == 0

    told = capsys.readouterr().out
    assert all(f"# /etc/systemd/system/{name}\n" in told for name in build_units(Settings(), None))


def test_units_command_directory_is_missing_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["units", "--directory", str(tmp_path / "none")]) == 1

    assert "not installed" in capsys.readouterr().err
