"""turnout.toml: merged with flags, and every error on one line with the line it stands on."""

import subprocess
from pathlib import Path

import pytest

from turnout.errors import SettingsError
from turnout.settings import Settings
from turnout.settings.file import SettingsFile, check_files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnout.toml"


def test_parse_file_gives_settings_and_flags_win(path: Path) -> None:
    path.write_text('shared_port = 4000\nlanes = "30000-30010"\ntransceivers = 3\n')

    settings = SettingsFile.read(path).parse({"transceivers": "1"})

    assert (settings.shared_port, settings.lane_first, settings.transceivers) == (4000, 30000, 1)


def test_read_if_there_of_no_file_is_the_defaults(path: Path) -> None:
    assert SettingsFile.read_if_there(path).parse({}) == Settings()


def test_read_file_that_is_named_and_not_there_says_so(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"turnout.toml: cannot be read \(No such file"):
        SettingsFile.read(path)


TABLES = """
open = true

[[upstream]]
name = "a"
lane = 20100
socket = "/run/a.sock"

[[upstream]]
name = "b"
lane = 20101
weight = "much"
socket = "/run/b.sock"
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# ports\nshared_port = 0\n", "2: shared_port 0: must be a port from 1 to 65535"),
        ("lanes = '9'\n", "1: lanes '9': must be FIRST-LAST, e.g. 20000-20999"),
        ("\n\nshared_prot = 1\n", "3: shared_prot: no such setting; did you mean 'shared_port'?"),
        ("log-level = 'info'\n", "1: log-level: no such setting; write it as 'log_level'"),
        ("follow_vips = true\n", "1: follow_vips: no such setting;"),
        ("vip = ['x']\n", "1: vip 'x': must be an IPv4 or IPv6 address"),
        (TABLES, "12: upstream[2].weight 'much': must be a whole number"),
        (TABLES.replace('weight = "much"', "wait = 2"), "12: upstream[2].wait: no such setting"),
        (TABLES.replace("20101", "true"), "11: upstream[2].lane True: must be a whole number"),
        (
            TABLES.replace("20101", "1").replace('"much"', "5"),
            "11: upstream[2].lane 1: must be 20002 to 20999",
        ),
        ("[[ice_server]]\nusername = 'u'\n", "1: ice_server[1].urls is missing"),
        ("ice_server = [{}, {urls = 3}]\n", "1: ice_server[1].urls is missing"),
        ("[limits]\nmax_sessions = 0\n", "2: limits.max_sessions 0: must be 1 to"),
        ("\nlimits.max_sessions = 0\n", "2: limits.max_sessions 0: must be 1 to"),
        ("\n\nlimits = { max_sessions = 0 }\n", "3: limits.max_sessions 0: must be 1 to"),
    ],
)
def test_parse_wrong_value_names_file_line_key_value_and_what_is_allowed(
    path: Path, text: str, line: str
) -> None:
    path.write_text(text)

    with pytest.raises(SettingsError) as caught:
        SettingsFile.read(path).parse({"transceivers": 2})

    assert line in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"vip = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_read_what_is_no_toml_says_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="is not TOML"):
        SettingsFile.read(path)


def test_parse_wrong_flag_is_not_blamed_on_the_file(path: Path) -> None:
    path.write_text("shared_port = 4000\n")

    with pytest.raises(SettingsError) as caught:
        SettingsFile.read(path).parse({"shared-port": "0"})

    assert str(caught.value) == "shared-port 0: must be a port from 1 to 65535"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two certificates and their keys: 1.pem, 1.key, 2.pem, 2.key."""
    directory = tmp_path_factory.mktemp("pem")
    for name in "12":
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=edge.example"),
                *("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem"),
            ],
            check=True,
            capture_output=True,
        )
    return directory


def test_check_files_pair_that_fits_is_taken(pem: Path) -> None:
    check_files(Settings(tls_cert=pem / "1.pem", tls_key=pem / "1.key"))


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("1.pem", "2.key", "tls-cert .*1.pem: does not fit .*2.key"),
        ("0.pem", "1.key", "tls-cert .*0.pem: cannot be read"),
        ("1.pem", "0.key", "tls-key .*0.key: cannot be read"),
        ("1.key", "1.key", "does not fit"),
    ],
)
def test_check_files_that_cannot_be_used_are_named(
    pem: Path, cert: str, key: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        check_files(Settings(tls_cert=pem / cert, tls_key=pem / key))
