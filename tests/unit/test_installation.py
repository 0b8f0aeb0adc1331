"""Which installation children are started from, and the lock that an upgrade holds."""

import asyncio
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from turnout.errors import TurnoutError
from turnout.installation import Installation
from turnout.rundir import ending, starting, upgrade_alone, wait_for_upgrade


def test_of_a_runtime_directory_that_names_none_is_our_own(tmp_path: Path) -> None:
    assert Installation.of(tmp_path) == Installation.mine()
    assert not Installation.is_known(tmp_path)


def test_written_installation_is_read_back_with_its_variables_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/old/agent")
    monkeypatch.setenv("TURNOUT_BPF", "/old/bpf")
    Installation("/opt/new/bin/python", {"PYTHONPATH": "/new/agent"}).write(tmp_path)

    assert Installation.is_known(tmp_path)
    read = Installation.of(tmp_path)

    assert read.python == "/opt/new/bin/python"
    assert read.environment["PYTHONPATH"] == "/new/agent"
    assert "TURNOUT_BPF" not in read.environment
    assert "PATH" in read.environment


def test_environment_keeps_modules_of_the_working_directory_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write where root starts an edge must not get root's rights by it."""
    (tmp_path / "turnout.py").write_text("raise SystemExit('hijacked')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')\n")
    monkeypatch.chdir(tmp_path)

    mine = Installation.mine()
    done = subprocess.run(
        (mine.python, "-m", "turnout", "--version"),
        env=mine.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_bare_environment_has_no_secrets_of_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    bare = Installation("python", {"PYTHONPATH": "/new/agent"}).bare_environment
    assert "AWS_SECRET_ACCESS_KEY" not in bare
    assert (bare["LC_ALL"], bare["PYTHONPATH"]) == ("C.UTF-8", "/new/agent")


def test_second_upgrade_is_refused_while_one_goes_on(tmp_path: Path) -> None:
    with ExitStack() as going_on:
        going_on.enter_context(upgrade_alone(tmp_path, "one"))
        with pytest.raises(TurnoutError, match="upgraded or ended just now"):
            going_on.enter_context(upgrade_alone(tmp_path, "one"))
    with upgrade_alone(tmp_path, "one"):
        pass


def test_agent_waits_until_the_upgrade_is_through(tmp_path: Path) -> None:
    wait_for_upgrade(tmp_path)  # there was none
    with upgrade_alone(tmp_path, "one"):
        waiting = threading.Thread(target=wait_for_upgrade, args=(tmp_path,))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_upgrade_of_an_edge_that_comes_up_is_refused_and_its_agent_starts(tmp_path: Path) -> None:
    async def come_up() -> None:
        async with starting(tmp_path):
            with pytest.raises(TurnoutError, match="started, upgraded or ended"):
                _upgrade(tmp_path)
            wait_for_upgrade(tmp_path)

    asyncio.run(come_up())
    _upgrade(tmp_path)


def test_edge_that_comes_up_waits_for_an_upgrade_that_goes_on(tmp_path: Path) -> None:
    async def come_up() -> None:
        async with starting(tmp_path):
            pass

    async def while_it_goes_on() -> None:
        with upgrade_alone(tmp_path, "one"):
            coming_up = asyncio.create_task(come_up())
            await asyncio.sleep(0)
            assert not coming_up.done()
        await coming_up

    asyncio.run(while_it_goes_on())


def test_end_ends_an_upgrade_that_goes_on(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from turnout.rundir import upgrade_alone\n"
        "with upgrade_alone(Path(sys.argv[1]), 'one'): print('goes on', flush=True); time.sleep(60)"
    )
    command = (sys.executable, "-c", source, str(tmp_path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upgrade:
        assert upgrade.stdout is not None
        assert upgrade.stdout.readline() == "goes on\n"
        with ending(tmp_path) as ended:
            assert ended == [f"ended process {upgrade.pid} (upgrade)"]
            with pytest.raises(TurnoutError, match="started, upgraded or ended"):
                _upgrade(tmp_path)
    assert upgrade.returncode == -signal.SIGTERM


def test_upgrade_of_an_edge_that_has_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TurnoutError, match="was ended just now"):
        _upgrade(tmp_path / "gone")


def _upgrade(runtime: Path) -> None:
    with upgrade_alone(runtime, "one"):
        pass
