"""Settings: what flags may say, and the one line that answers what they may not."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from turnout.errors import SettingsError
from turnout.settings import Endpoint, Settings


def test_parse_nothing_given_gives_the_documented_defaults() -> None:
    settings = Settings.parse({})

    assert settings.shared_port == 3478
    assert (settings.lane_first, settings.lane_last) == (20000, 20999)
    assert settings.http == Endpoint("0.0.0.0", 8080)
    assert settings.metrics == Endpoint("127.0.0.1", 9478)
    assert settings.xdp_mode == "generic"
    assert settings.transceivers >= 1
    assert settings.runtime == Path("/run/turnout/default")
    assert settings.interfaces == ()
    assert settings.vips == ()


def test_parse_all_flags_as_text_gives_typed_values() -> None:
    settings = Settings.parse(
        {
            "interface": ["eth1", "eth2"],
            "vip": ["192.0.2.2", "2001:db8::2"],
            "shared-port": "3479",
            "lanes": "21000-21009",
            "http": "[::]:8081",
            "metrics": "127.0.0.1:9479",
            "transceivers": "3",
            "xdp-mode": "native",
            "local": True,
            "instance": "two",
            "bpffs": "/tmp/bpf",
            "log-level": "debug",
        }
    )

    assert settings.interfaces == ("eth1", "eth2")
    assert settings.attach_interfaces == ("eth1", "eth2", "lo")
    assert settings.vips == (ip_address("192.0.2.2"), ip_address("2001:db8::2"))
    assert settings.http == Endpoint("::", 8081)
    assert str(settings.http) == "[::]:8081"
    assert settings.lane(2) == 21002
    assert settings.transceiver_socket(2) == Path("/run/turnout/two/transceiver-2.sock")


def test_parse_values_of_a_file_gives_the_same_as_flags() -> None:
    as_flags = Settings.parse({"shared-port": "3479", "vip": ["192.0.2.2"], "transceivers": "2"})
    as_file = Settings.parse({"shared-port": 3479, "vip": "192.0.2.2", "transceivers": 2})

    assert as_flags == as_file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shared-port": "0"}, "shared-port 0: must be a port from 1 to 65535"),
        ({"shared-port": "x"}, "shared-port 'x': must be a whole number"),
        ({"shared-port": "-1"}, "shared-port '-1': must be a whole number"),
        ({"shared-port": True}, "shared-port True: must be a whole number"),
        ({"shared-port": "20005"}, "shared-port 20005: must be outside the lanes 20000-20999"),
        ({"lanes": "20999-20000"}, "lanes 20999-20000: must be FIRST-LAST within"),
        ({"lanes": "1000-1100"}, "lanes 1000-1100: must be FIRST-LAST within 1024-65535"),
        ({"lanes": "20000"}, "lanes '20000': must be FIRST-LAST"),
        ({"lanes": "20000-20003", "transceivers": "5"}, "transceivers 5: must be 0 to 4"),
        ({"vip": ["192.0.2"]}, "vip '192.0.2': must be an IPv4 or IPv6 address"),
        ({"vip": ["0.0.0.0"]}, "vip 0.0.0.0: must be one host's address"),
        ({"vip": ["ff02::1"]}, "vip ff02::1: must be one host's address"),
        ({"vip": ["fe80::1"]}, "vip fe80::1: a link-local address"),
        ({"vip": ["::ffff:192.0.2.2"]}, "write it as 192.0.2.2"),
        ({"vip": ["127.0.0.1"]}, "vip 127.0.0.1: a loopback address needs --local"),
        ({"vip": ["192.0.2.2", "192.0.2.2"]}, "vip 192.0.2.2: is given twice"),
        ({"vip": [f"192.0.2.{n}" for n in range(9)]}, "vip (9 of them): at most 8"),
        ({"interface": ["lo"]}, "interface lo: the loopback interface is switched on by --local"),
        ({"interface": ["a name"]}, "interface 'a name': must be a network interface's name"),
        ({"interface": ["x" * 16]}, "must be a network interface's name"),
        ({"interface": ["eth0", "eth0"]}, "interface eth0: is given twice"),
        ({"interface": [3]}, "interface 3: must be text"),
        ({"http": "8080"}, "http '8080': must be ADDRESS:PORT"),
        ({"http": "localhost:8080"}, "http 'localhost:8080': must be ADDRESS:PORT"),
        ({"http": "[192.0.2.2]:8080"}, "must be ADDRESS:PORT"),
        ({"http": "127.0.0.1:70000"}, "http 70000: must be a port from 1 to 65535"),
        ({"http": "127.0.0.1:9478"}, "metrics 127.0.0.1:9478: is the address of --http already"),
        ({"xdp-mode": "offload"}, "xdp-mode offload: must be generic or native"),
        ({"instance": "A"}, "instance 'A': must be 1 to 32 of a-z"),
        ({"instance": "../x"}, "instance '../x': must be"),
        ({"instance": "a.b"}, "instance 'a.b': must be"),
        ({"bpffs": "bpf"}, "bpffs bpf: must be an absolute path"),
        ({"log-level": "loud"}, "log-level loud: must be one of debug, info, warning, error"),
        ({"local": "yes"}, "local 'yes': must be true or false"),
        ({"share-port": "1"}, "share-port: no such setting; did you mean 'shared-port'?"),
        ({"zzz": "1"}, "zzz: no such setting; known are interface"),
    ],
)
def test_parse_wrong_value_names_key_value_and_what_is_allowed(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.parse(values)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_written_and_read_gives_equal_settings() -> None:
    settings = Settings.parse(
        {"interface": ["eth0"], "vip": ["2001:db8::2"], "http": "[::1]:80", "local": True}
    )

    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("text", ["", "[]", "{", '{"vip": 3}', '{"nothing": 1}'])
def test_from_json_broken_text_raises_settings_error(text: str) -> None:
    with pytest.raises(SettingsError):
        Settings.from_json(text)


def test_load_instance_that_does_not_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="instance 'nobody': cannot read"):
        Settings.load("nobody", tmp_path)


def test_load_written_settings_gives_them_back(tmp_path: Path) -> None:
    settings = Settings(instance="one", runtime_root=tmp_path, transceivers=2)
    settings.runtime.mkdir()
    settings.settings_file.write_text(settings.to_json())

    assert Settings.load("one", tmp_path) == settings


def test_replace_wrong_value_is_refused_like_a_flag() -> None:
    with pytest.raises(SettingsError, match="shared-port 70000"):
        Settings().replace(shared_port=70000)
