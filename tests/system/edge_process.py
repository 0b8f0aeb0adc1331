"""A real edge (`turnout run`) in a namespace: started, asked over its API, ended, inspected."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from system.namespaces import EDGE_ADDRESSES, INTERFACE, Namespaces

RUNTIME_ROOT = Path("/run/turnout")
# Compiling takes seconds here and far longer on an emulated machine.
READY_S = 90.0
STOP_S = 30.0


class ApiCallFailed(Exception):
    """The local API answered with an error; `status` and the problem's `detail` are there."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.detail = str(body.get("detail", "")) if isinstance(body, dict) else ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: str | None = None) -> Any:
    """Speak JSON over HTTP on a UNIX socket."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, target, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode()
    finally:
        connection.close()
    answer = json.loads(text) if text else None
    if reply.status >= 400:
        raise ApiCallFailed(reply.status, answer)
    return answer


class EdgeProcess:
    """One instance of the product. `log` is where its output goes."""

    def __init__(self, namespaces: Namespaces, instance: str, bpffs: Path, log: Path) -> None:
        self.instance = instance
        self.bpffs = bpffs
        self.log = log
        self.runtime = RUNTIME_ROOT / instance
        # What tells `run` where clients come in; a test may say otherwise before it starts.
        self.where = ["--interface", INTERFACE, "--xdp-mode", "native"]
        self.where += [part for vip in EDGE_ADDRESSES.values() for part in ("--vip", vip)]
        self._namespaces = namespaces
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `turnout ARGUMENTS` in the edge's namespace.

        `ip netns exec` would remount /sys and hide the bpffs: nsenter enters only the network.
        """
        namespace = f"--net=/run/netns/{self._namespaces.edge}"
        return ["nsenter", namespace, sys.executable, "-m", "turnout", *arguments]

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `turnout ARGUMENTS` to its end."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=READY_S, check=False
        )

    def run_arguments(self, *flags: str, transceivers: int = 2) -> list[str]:
        """Return the arguments of `turnout run` for this lab; later flags win."""
        return [
            *("run", "--instance", self.instance, "--bpffs", str(self.bpffs)),
            *self.where,
            *("--http", "0.0.0.0:8080", "--open", "--transceivers", str(transceivers)),
            *flags,
        ]

    def start(self, *flags: str, transceivers: int = 2) -> None:
        """Start the edge and wait until every transceiver is active and the program attached."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(*self.run_arguments(*flags, transceivers=transceivers)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._is_ready(transceivers):
            if self._process.poll() is not None:
                code = self._process.returncode
                raise AssertionError(f"turnout run ended with {code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready after {READY_S:g} s:\n{self.tail()}")
            time.sleep(0.1)

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit code. A second SIGKILL after 30 s."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"SIGTERM and no end for {STOP_S:g} s:\n{self.tail()}") from None

    def reload(self) -> None:
        """SIGHUP to the supervisor: it reads the settings file again."""
        os.kill(self.pids()["run"], signal.SIGHUP)

    def said(self, text: str) -> bool:
        """Tell whether the edge has logged this."""
        return text in self.log.read_text(errors="replace")

    def kill_all(self) -> None:
        """Kill -9 every process of the edge, the supervisor first, and wait until all are gone."""
        pids = self.pids()
        for name in sorted(pids, key=lambda name: name != "run"):
            with suppress(ProcessLookupError):  # children die with the supervisor
                os.kill(pids[name], signal.SIGKILL)
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until no process of the edge is left."""
        assert self._process is not None
        self._process.wait(STOP_S)
        deadline = time.monotonic() + STOP_S
        while left := self.processes():
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.02)

    def clean_up(self) -> None:
        """End whatever is left, however the test went."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.stop()
        if self.leftovers():
            self.run_command("down", "--instance", self.instance, "--bpffs", str(self.bpffs))
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the local API. Raises ApiCallFailed for 4xx and 5xx, OSError if it is not there."""
        text = None if body is None else json.dumps(body)
        return ask(self.runtime / "api.sock", method, path, text)

    def transceiver(self, slot: int) -> dict[str, Any]:
        """Return what a transceiver says of itself: sessions and counters."""
        picture: dict[str, Any] = ask(self.runtime / f"transceiver-{slot}.sock", "GET", "/status")
        return picture

    def status(self) -> dict[str, Any]:
        """Return GET /status of the local API."""
        picture: dict[str, Any] = self.api("GET", "/status")
        return picture

    def counters(self) -> dict[str, int]:
        """Return the kernel's counters by their flat names."""
        counters: dict[str, int] = self.status()["counters"]
        return counters

    def pids(self) -> dict[str, int]:
        """Return pid by name of pid file: run, agent, transceiver-0 ..."""
        return {
            path.stem: int(path.read_text().split()[0])
            for path in sorted(self.runtime.glob("*.pid"))
        }

    def processes(self) -> list[int]:
        """Return the pids of all processes whose command line or environment names us."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = entry.read_bytes().decode(errors="replace")
            except OSError:
                continue  # ended meanwhile
            pid = int(entry.parent.name)
            if self.instance in text and "turnout" in text and pid != os.getpid():
                found.append(pid)
        return found

    def leftovers(self) -> list[str]:
        """Return what is still there of an edge that has ended: nothing, if all is well."""
        left = [f"process {pid}" for pid in self.processes()]
        pins = self.bpffs / "turnout" / self.instance
        left += [f"pin {path}" for path in [pins, *pins.rglob("*")] if path.exists()]
        if "xdp" in self._namespaces.edge_link():
            left.append(f"XDP program {self._namespaces.edge_link()['xdp']}")
        if filters := self._namespaces.edge_filters():
            left.append(f"filter {filters}")
        if self.runtime.exists():
            left.append(f"runtime directory {self.runtime}")
        return left

    def tail(self, lines: int = 80) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _is_ready(self, transceivers: int) -> bool:
        try:
            status = self.status()
        except (OSError, http.client.HTTPException, ApiCallFailed):
            return False
        active = [
            owner
            for owner in status["owners"]
            if owner["kind"] == "transceiver" and owner["state"] == "active"
        ]
        return len(active) >= transceivers and bool(status["interfaces"])
