"""Giving up privilege, in processes of the tests' own: what is gone is gone for good."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnout.privileges import CAPABILITIES, name_capabilities

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: has nothing to give up")

_REPORT = """
import json, pathlib, threading
def read(name):
    text = pathlib.Path(name).read_text()
    return dict(line.split(":\\t", 1) for line in text.splitlines() if ":\\t" in line)
shown = []
# A thread that is started afterwards has no more than the one that started it.
thread = threading.Thread(target=lambda: shown.append(read("/proc/thread-self/status")))
thread.start()
thread.join()
print(json.dumps([read("/proc/self/status"), *shown]))
"""


def statuses_after(code: str) -> list[dict[str, str]]:
    """Run code in a new process; return its own /proc status and that of a new thread."""
    done = subprocess.run(
        [sys.executable, "-c", code + _REPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown: list[dict[str, str]] = json.loads(done.stdout)
    return shown


def test_name_capabilities_known_and_unknown_ones() -> None:
    mask = 1 << CAPABILITIES["CAP_BPF"] | 1 << 34
    assert name_capabilities(mask) == ["capability 34", "CAP_BPF"]
    assert name_capabilities(0) == []


@pytest.mark.privileged
@needs_root
def test_keep_only_leaves_these_and_no_way_to_others() -> None:
    mask = f"{1 << CAPABILITIES['CAP_NET_ADMIN'] | 1 << CAPABILITIES['CAP_BPF']:016x}"
    for status in statuses_after(
        "from turnout.privileges import keep_only\nkeep_only(['CAP_BPF', 'CAP_NET_ADMIN'])\n"
    ):
        assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd")] == [mask] * 3
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert status["NoNewPrivs"] == "1"


@pytest.mark.privileged
@needs_root
def test_keep_only_of_what_is_not_there_does_not_fail() -> None:
    code = (
        "from turnout.privileges import keep_only\n"
        "keep_only(['CAP_BPF'])\nkeep_only(['CAP_BPF', 'CAP_SYS_ADMIN'])\n"
    )
    for status in statuses_after(code):
        assert int(status["CapEff"], 16) == 1 << CAPABILITIES["CAP_BPF"]


@pytest.mark.privileged
@needs_root
def test_become_is_that_user_alone_and_cannot_come_back() -> None:
    code = (
        "import os\nfrom turnout.privileges import become\nbecome(4711, 4712)\n"
        "for back in (os.setuid, os.seteuid, os.setgid):\n"
        "    try:\n        back(0)\n    except PermissionError:\n        continue\n"
        "    raise SystemExit('is root again')\n"
    )
    for status in statuses_after(code):
        assert status["Uid"].split() == ["4711"] * 4
        assert status["Gid"].split() == ["4712"] * 4
        assert status["Groups"].strip() == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0


@pytest.mark.privileged
@needs_root
def test_become_of_an_id_that_means_no_change_fails() -> None:
    code = "from turnout.privileges import become\nbecome(2**32 - 1, 2**32 - 1)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot be had" in done.stderr


@pytest.mark.privileged
@needs_root
def test_become_keeps_neither_place_nor_what_is_typed(tmp_path: Path) -> None:
    """A directory below one that keeps the user out, and a terminal that it could read from."""
    (tmp_path / "secret").write_text("token")
    tmp_path.chmod(0o755)
    code = (
        "import fcntl, os\nfrom turnout.privileges import become\nbecome(4711, 4711)\n"
        "ways = [fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in (1, 2)]\n"
        "print(os.getcwd(), ways == [os.O_WRONLY] * 2, os.path.exists('secret'))\n"
    )
    ours, its = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=its, stderr=its, cwd=tmp_path, check=False
        )
        assert os.read(ours, 4096) == b"/ True False\r\n"
        assert done.returncode == 0
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.privileged
@needs_root
def test_become_still_dies_with_its_parent() -> None:
    """The kernel forgets PR_SET_PDEATHSIG when ids change: it has to be asked for again."""
    child = (
        "import os, signal\nfrom turnout.privileges import become\nbecome(4711, 4711)\n"
        "print(os.getpid(), flush=True)\nsignal.pause()\n"
    )
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert int(process.stdout.readline()) > 0
    finally:
        process.kill()
        process.wait()
    # The pipe's other end is the child's: this returns when it has ended.
    assert process.stdout.read() == ""
    process.stdout.close()
