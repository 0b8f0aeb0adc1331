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
        ({"advertise": ["198.51.100"]}, "advertise '198.51.100': must be PUBLIC or PUBLIC=VIP"),
        ({"advertise": ["198.51.100.1="]}, "must be PUBLIC or PUBLIC=VIP"),
        ({"advertise": ["0.0.0.0"]}, "advertise 0.0.0.0: must be one host's address"),
        ({"advertise": ["2001:db8::1=10.0.0.1"]}, "both must be IPv4, or both IPv6"),
        (
            {"vip": ["10.0.0.1"], "advertise": ["198.51.100.1=10.0.0.2"]},
            "advertise 198.51.100.1=10.0.0.2: 10.0.0.2 is no VIP; they are 10.0.0.1",
        ),
        (
            {"vip": ["10.0.0.1", "10.0.0.2"], "advertise": ["198.51.100.1"]},
            "advertise 198.51.100.1: 2 of the VIPs (10.0.0.1, 10.0.0.2) are IPv4: name one",
        ),
        (
            {"vip": ["10.0.0.1"], "advertise": ["2001:db8::1"]},
            "advertise 2001:db8::1: 0 of the VIPs (10.0.0.1) are IPv6",
        ),
        ({"advertise": ["198.51.100.1"] * 2}, "advertise 198.51.100.1: is given twice"),
        ({"http-token": "short"}, "http-token (of 5 characters): must be 16 to 256 characters"),
        ({"http-token": 5}, "http-token (a int): must be 16 to 256 characters"),
        ({"tls-cert": "/c.pem"}, "tls-cert /c.pem: needs tls-key beside it"),
        ({"tls-key": "/k.pem"}, "tls-key /k.pem: needs tls-cert beside it"),
        ({"tls-cert": "c.pem"}, "tls-cert c.pem: must be an absolute path"),
        ({"trusted-proxy": ["10.0.0.1/8"]}, "trusted-proxy '10.0.0.1/8': must be an address or"),
        ({"app": "rtp://127.0.0.1"}, "app 'rtp://127.0.0.1': must be echo or rtp://HOST:PORT"),
        ({"app": "rtp://127.0.0.1:99999"}, "must be echo or rtp://HOST:PORT"),
        ({"app": "talk"}, "app 'talk': must be echo or"),
        ({"transceiver-user": "root"}, "transceiver-user 'root': must be the name or number of a"),
        ({"transceiver-user": "0"}, "transceiver-user '0': must be the name or number of a user"),
        ({"transceiver-user": "a b"}, "transceiver-user 'a b': must be the name or number of a"),
        ({"webhook": "ftp://x/"}, "webhook 'ftp://x/': must be a URL"),
        ({"ice-server": "stun:x"}, "ice-server 'stun:x': must be tables, each headed by [[ice_"),
        ({"ice-server": [{}]}, "ice-server[1].urls is missing"),
        ({"ice-server": [{"urls": "x.org"}]}, "ice-server[1].urls 'x.org': must be like stun:"),
        ({"ice-server": [{"urls": "turn:x"}]}, "a TURN server needs username and credential"),
        ({"ice-server": [{"url": "stun:x"}]}, "ice-server[1].url: no such setting; did you mean"),
        ({"upstream": [{"name": "a"}]}, "upstream[1].lane is missing: needs name and lane"),
        (
            {"upstream": [{"name": "a", "lane": 20100}]},
            "upstream[1] 'a': needs whip (a URL) or socket (a path)",
        ),
        (
            {"upstream": [{"name": "a", "lane": 20000, "socket": "/s"}], "transceivers": 2},
            "upstream[1].lane 20000: must be 20002 to 20999",
        ),
        (
            {"upstream": [{"name": "a", "lane": 20100, "socket": "/s", "weight": 0}]},
            "upstream[1].weight 0: must be 1 to 1000",
        ),
        (
            {"upstream": [{"name": n, "lane": 20100, "socket": "/s"} for n in "ab"]},
            "upstream 20100: is given twice",
        ),
        ({"limits": 5}, "limits 5: must be a table, headed by [limits]"),
        ({"limits": {"flows_per_session": 17}}, "limits.flows_per_session 17: must be 1 to 16"),
        ({"limits": {"handshakes": "many"}}, "limits.handshakes 'many': must be a whole number"),
        ({"limits": {"handshake": 1}}, "limits.handshake: no such setting; did you mean 'hand"),
        ({"flow-table": 10}, "flow-table 10: must be 1024 to 16777216"),
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


def test_parse_secrets_are_not_repeated_by_errors() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.parse({"http-token": "geheim geheim geheim"})

    assert "geheim" not in str(caught.value)


FULL = {
    "vip": ["10.0.0.1", "fd00::1"],
    "advertise": ["198.51.100.1=10.0.0.1", "2001:db8::1"],
    "http-token": "0123456789abcdef",
    "tls-cert": "/etc/cert.pem",
    "tls-key": "/etc/key.pem",
    "trusted-proxy": ["10.0.0.0/8", "2001:db8::/32"],
    "ice-server": [{"urls": ["turn:t.example:3478"], "username": "u", "credential": "c"}],
    "upstream": [{"name": "sfu", "lane": 20100, "whip": "http://127.0.0.1:7777/whip"}],
    "transceivers": 2,
    "app": "rtp://127.0.0.1:4000",
    "webhook": "https://127.0.0.1:9000/calls",
    "open": True,
    "log-json": True,
}


def test_json_of_every_key_written_and_read_gives_equal_settings() -> None:
    settings = Settings.parse(FULL)

    assert Settings.from_json(settings.to_json()) == settings
    assert settings.upstreams[0].weight == 1
    assert settings.ice_servers[0].urls == ("turn:t.example:3478",)


def test_repr_of_settings_shows_no_secret() -> None:
    assert "0123456789abcdef" not in repr(Settings.parse(FULL))
    assert "credential" not in repr(Settings.parse(FULL))


def test_write_leaves_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings.parse(FULL | {"runtime-root": str(tmp_path)})
    settings.runtime.mkdir()
    settings.write()
    settings.write()

    assert settings.settings_file.stat().st_mode & 0o777 == 0o600
    assert Settings.load("default", tmp_path) == settings


PRIVATE, OTHER, SIX = (ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1"))


def test_candidates_are_the_public_addresses_where_there_are_some() -> None:
    settings = Settings.parse({"advertise": ["198.51.100.1=10.0.0.1", "198.51.100.2=10.0.0.1"]})

    assert settings.candidates([PRIVATE, SIX]) == [
        ("198.51.100.1", 3478),
        ("198.51.100.2", 3478),
        ("fd00::1", 3478),
    ]
    # Its VIP is not there just now.
    assert settings.candidates([SIX]) == [("fd00::1", 3478)]


def test_candidates_public_without_vip_stands_for_the_first_of_its_family() -> None:
    settings = Settings.parse({"advertise": ["198.51.100.1", "2001:db8::1"]})

    assert settings.candidates([PRIVATE, OTHER, SIX]) == [
        ("198.51.100.1", 3478),
        ("10.0.0.2", 3478),
        ("2001:db8::1", 3478),
    ]


@pytest.mark.parametrize(
    ("vip", "is_hidden"),
    [
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("169.254.1.1", True),
        ("fd00::1", True),
        ("fc00::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("127.0.0.1", False),
    ],
)
def test_hidden_vips_are_the_private_ones_without_a_public_address(
    vip: str, is_hidden: bool
) -> None:
    address = ip_address(vip)

    assert Settings().hidden_vips([address]) == [address] * is_hidden
    # Somebody who advertises it as itself knows what he does.
    assert Settings.parse({"advertise": [vip]}).hidden_vips([address]) == []


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
