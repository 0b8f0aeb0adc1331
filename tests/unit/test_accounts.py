"""The user that transceivers run as: named, numbered, or the one that fits the host."""

import pwd

import pytest

from turnout.accounts import Account, find_account, needed_capabilities
from turnout.errors import SettingsError
from turnout.settings import Settings


def users(monkeypatch: pytest.MonkeyPatch, **known: tuple[int, int]) -> None:
    """Have these users in the database: (uid, gid) by name."""
    entries = {
        name: pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))
        for name, (uid, gid) in known.items()
    }

    def by_uid(uid: int) -> pwd.struct_passwd:
        return {entry.pw_uid: entry for entry in entries.values()}[uid]

    monkeypatch.setattr(pwd, "getpwnam", entries.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", by_uid)


def test_find_account_by_name_has_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, media=(900, 901))
    assert find_account("media") == Account("media", 900, 901)
    assert str(find_account("media")) == "media (uid 900)"


def test_find_account_by_number_needs_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, media=(900, 901))
    assert find_account("900") == Account("media", 900, 901)
    assert find_account("4711") == Account("4711", 4711, 4711)
    assert str(find_account("4711")) == "4711"


def test_find_account_unnamed_prefers_turnout(monkeypatch: pytest.MonkeyPatch) -> None:
    users(monkeypatch, turnout=(950, 951), nobody=(65534, 65534))
    assert find_account("") == Account("turnout", 950, 951)


def test_find_account_unnamed_falls_back_to_nobody_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users(monkeypatch, nobody=(65534, 65534))
    account = find_account("")
    assert (account.name, account.uid, account.gid) == ("nobody", 65534, 65534)
    assert "useradd" in account.note


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("ghost", "there is no such user"),
        ("toor", "is root"),
        ("wheel", "in root's group"),
        ("4294967295", "no uid"),  # -1: the kernel would leave it root
    ],
)
def test_find_account_that_does_not_serve_is_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: str, said: str
) -> None:
    users(monkeypatch, toor=(0, 5), wheel=(7, 0))
    with pytest.raises(SettingsError, match=said):
        find_account(wanted)


ALWAYS = {"CAP_BPF", "CAP_NET_ADMIN"}
FILES = {"tls-cert": "/c.pem", "tls-key": "/k.pem"}
UPSTREAM = {"name": "sfu", "lane": 20500}


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({}, set()),
        ({"http": "0.0.0.0:443"}, {"CAP_NET_BIND_SERVICE"}),
        ({"shared-port": 443}, {"CAP_NET_BIND_SERVICE"}),
        (FILES, {"CAP_DAC_READ_SEARCH"}),
        ({"upstream": [{**UPSTREAM, "whip": "http://127.0.0.1:7777/whip"}]}, set()),
        ({"upstream": [{**UPSTREAM, "socket": "/run/sfu.sock"}]}, {"CAP_DAC_OVERRIDE"}),
    ],
)
def test_needed_capabilities_are_two_and_what_settings_ask_for(
    values: dict[str, object], more: set[str]
) -> None:
    assert needed_capabilities(Settings.parse(values)) == ALWAYS | more
