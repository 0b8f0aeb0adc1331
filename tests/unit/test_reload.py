"""SIGHUP: what is applied, what takes a restart, and what stands in its way."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from turnout.errors import SettingsError
from turnout.reloading import prepare_reload, room_for_transceivers
from turnout.settings import OWNERS_MAX, Endpoint, Limits, Settings
from turnout.settings.keys import KEYS, Source
from turnout.settings.reload import plan_reload

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
RUNNING = Settings(interfaces=("eth0",), vips=(ONE,), transceivers=2)


def test_plan_reload_of_the_same_changes_nothing() -> None:
    plan = plan_reload(RUNNING, RUNNING)

    assert plan.settings == RUNNING
    assert str(plan) == "nothing has changed"


def test_plan_reload_applies_what_is_live_and_keeps_what_takes_a_restart() -> None:
    wanted = RUNNING.replace(
        log_level="debug", vips=(ONE, TWO), http=Endpoint("127.0.0.1", 80), shared_port=4000
    )

    plan = plan_reload(RUNNING, wanted)

    assert str(plan) == "applied vip, log_level; takes a restart: shared_port, http"
    assert plan.settings == RUNNING.replace(log_level="debug", vips=(ONE, TWO))


async def test_prepare_reload_refuses_when_the_transceivers_user_has_gone() -> None:
    """Whom nobody can start again must be known before anything changes, not end the edge."""
    running = RUNNING.replace(transceiver_user="tn-was-deleted")
    with pytest.raises(SettingsError, match="no such user"):
        await prepare_reload(running, lambda: running)


def test_plan_reload_applies_limits() -> None:
    wanted = RUNNING.replace(limits=Limits(max_sessions=5))

    plan = plan_reload(RUNNING, wanted)

    assert plan.applied == ("limits",)
    assert Settings.from_json(plan.settings.to_json()).limits == Limits(max_sessions=5)


@pytest.mark.parametrize(
    ("count", "most", "is_applied"),
    [(3, OWNERS_MAX, True), (3, 3, True), (3, 2, False), (1, OWNERS_MAX, False)],
)
def test_plan_reload_transceivers_may_become_more_where_there_is_room(
    count: int, most: int, is_applied: bool
) -> None:
    plan = plan_reload(RUNNING, RUNNING.replace(transceivers=count), transceivers_most=most)

    assert ("transceivers" in plan.applied, "transceivers" in plan.needs_restart) == (
        is_applied,
        not is_applied,
    )
    assert plan.settings.transceivers == (count if is_applied else 2)


def test_plan_reload_takes_other_tls_files_but_no_tls_where_there_was_none() -> None:
    one = RUNNING.replace(tls_cert=Path("/1.pem"), tls_key=Path("/1.key"))
    two = RUNNING.replace(tls_cert=Path("/2.pem"), tls_key=Path("/2.key"))

    assert plan_reload(one, two).applied == ("tls_cert", "tls_key")
    assert plan_reload(RUNNING, one).needs_restart == ("tls_cert", "tls_key")
    assert plan_reload(one, RUNNING).needs_restart == ("tls_cert", "tls_key")


def test_plan_reload_defaults_that_the_agent_follows_are_no_change() -> None:
    running = RUNNING.replace(follow_vips=True, follow_interfaces=True)
    wanted = running.replace(vips=(TWO,), interfaces=("eth1",))

    assert str(plan_reload(running, wanted)) == "nothing has changed"


def test_plan_reload_naming_the_default_vip_ends_the_following() -> None:
    plan = plan_reload(RUNNING.replace(follow_vips=True), RUNNING)

    assert plan.applied == ("vip",)
    assert plan.settings.follow_vips is False


def test_plan_reload_knows_every_key_a_person_can_give() -> None:
    given = [key for key in KEYS.values() if key.source != Source.CHILDREN]

    fields = [name for key in given for name in key.fields]
    assert len(fields) == len(set(fields))
    assert {name for key in KEYS.values() for name in key.fields} == set(Settings.__slots__)


@pytest.mark.parametrize(
    ("owners", "most"),
    [
        ([], OWNERS_MAX),
        ([{"slot": 0, "lane": 20000, "kind": "transceiver"}], OWNERS_MAX),
        ([{"slot": 2, "lane": 20500, "kind": "registered"}], 2),
        ([{"slot": 700, "lane": 20003, "kind": "registered"}], 3),
    ],
)
def test_room_for_transceivers_ends_before_a_registered_owner(
    owners: list[dict[str, Any]], most: int
) -> None:
    assert room_for_transceivers(RUNNING, owners) == most


_ON_A_TERMINAL = """
import os, pty, signal, sys
from turnout.reloading import Terminal
child, terminal = pty.fork()
if child == 0:
    seen = Terminal()
    before = seen.has_gone
    def tell(*_):
        os.write({pipe}, f"{{before}} {{seen.has_gone}}".encode())
        os._exit(0)
    signal.signal(signal.SIGHUP, tell)
    os.write(1, b"ready")
    while True:
        signal.pause()
os.read(terminal, 5)
{then}
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        pytest.param("os.close(terminal)", b"False True", id="the terminal goes"),
        pytest.param("os.kill(child, signal.SIGHUP)", b"False False", id="somebody sends it"),
    ],
)
def test_terminal_tells_its_own_end_from_a_reload(then: str, said: bytes) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as told:
        try:
            subprocess.run(
                [sys.executable, "-c", _ON_A_TERMINAL.format(pipe=write, then=then)],
                pass_fds=(write,),
                check=True,
                timeout=30,
            )
        finally:
            os.close(write)
        assert told.read() == said
