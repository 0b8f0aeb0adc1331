"""The runtime directory: one holder, and pid files that name only what is still the same."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from turnout.errors import TurnoutError
from turnout.rundir import RUN_PID, ProcessId, hold, remove

_IGNORE_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    # The name of ours must be in the command line, as it is in that of our children.
    sleeper = subprocess.Popen((sys.executable, "-c", "input()", "turnout"), stdin=subprocess.PIPE)
    with sleeper:
        yield sleeper
        sleeper.kill()


def test_hold_makes_a_private_directory(tmp_path: Path) -> None:
    with hold(tmp_path / "run" / "one", "one"):
        mode = (tmp_path / "run" / "one").stat().st_mode

    assert stat.S_IMODE(mode) == 0o700


def test_hold_twice_names_the_instance_and_the_holder(tmp_path: Path) -> None:
    runtime = tmp_path / "one"
    with hold(runtime, "one"):
        ProcessId.mine().write(runtime / RUN_PID)

        with (
            pytest.raises(TurnoutError, match=rf"one already runs \(pid {os.getpid()}\)"),
            hold(runtime, "one"),
        ):
            pytest.fail("held twice")


def test_hold_after_release_is_free_again(tmp_path: Path) -> None:
    with hold(tmp_path / "one", "one"):
        pass

    with hold(tmp_path / "one", "one"):
        assert (tmp_path / "one").is_dir()


def test_hold_where_no_directory_can_be_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(TurnoutError, match="file/one"), hold(tmp_path / "file" / "one", "one"):
        pytest.fail("held in a file")


def test_remove_leaves_the_directory_above_to_other_instances(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "run" / name).mkdir(parents=True)

    remove(tmp_path / "run" / "one")
    assert (tmp_path / "run").is_dir()
    remove(tmp_path / "run" / "two")

    assert not (tmp_path / "run").exists()


def test_process_id_written_and_read_is_the_same(tmp_path: Path) -> None:
    ProcessId.mine().write(tmp_path / "x.pid")

    assert ProcessId.read(tmp_path / "x.pid") == ProcessId.of(os.getpid())


@pytest.mark.parametrize("text", ["", "12", "a b", "1 2 3"])
def test_process_id_broken_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.pid").write_text(text)

    assert ProcessId.read(tmp_path / "x.pid") is None


def test_process_id_of_an_ended_process_is_none(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    # Without wait() it stays a zombie, which has ended all the same.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert ProcessId.of(process.pid) is None


def test_stop_ends_the_process_with_sigterm(process: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(process.pid)
    assert identity is not None

    assert identity.stop(5.0)

    assert process.wait() == -signal.SIGTERM


def test_stop_process_that_ignores_sigterm_is_killed() -> None:
    stubborn = subprocess.Popen(
        (
            sys.executable,
            "-c",
            _IGNORE_SIGTERM,
            "turnout",
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        identity = ProcessId.of(stubborn.pid)
        assert identity is not None

        assert identity.stop(0.0)

        assert stubborn.wait() == -signal.SIGKILL


def test_stop_pid_that_was_used_again_leaves_the_stranger_alone(
    process: subprocess.Popen[bytes],
) -> None:
    now = ProcessId.of(process.pid)
    assert now is not None

    assert not ProcessId(now.pid, now.started - 1).stop(0.0)

    assert process.poll() is None


def test_stop_process_of_another_program_leaves_it_alone() -> None:
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE) as stranger:
        identity = ProcessId.of(stranger.pid)
        assert identity is not None

        assert not identity.stop(0.0)

        assert stranger.poll() is None


def test_stop_process_that_is_gone_is_false(process: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(process.pid)
    assert identity is not None
    process.kill()
    process.wait()

    assert not identity.stop(0.0)
