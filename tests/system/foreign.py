"""A media server that is not ours behind the edge: libdatachannel, by its Node binding from npm.

It is installed once, unchanged, into a cache; media_server.mjs gives it the few lines of WHIP that
it lacks.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from system.lab import Lab, wait_until
from system.namespaces import EDGE_ADDRESSES

PACKAGE = "node-datachannel@0.33.4"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "turnout-tests"
PROGRAM = Path(__file__).with_name("media_server.mjs")


def install_package() -> Path:
    """Return where the package is, installed if it is not; skips where npm is missing."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt: nodejs npm)")
    prefix = CACHE / PACKAGE.replace("@", "-")
    package = prefix / "node_modules" / "node-datachannel"
    if not package.exists():
        # Its binaries are packages of their own: no script has to run.
        subprocess.run(
            [
                *("npm", "install", "--prefix", str(prefix)),
                *("--ignore-scripts", "--no-audit", "--no-fund", PACKAGE),
            ],
            check=True,
            capture_output=True,
            timeout=150,
        )
    return package


class MediaServerProcess:
    """A running media server on (VIP, `lane`), its WHIP on 127.0.0.1:`http_port`."""

    def __init__(self, lab: Lab, package: Path, lane: int, http_port: int) -> None:
        self._output = lab.directory / f"media-server-{lane}.jsonl"
        with self._output.open("wb") as stdout:
            self._process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{lab.namespaces.edge}"),
                    *("node", str(PROGRAM), EDGE_ADDRESSES[4], str(lane), str(http_port)),
                ],
                stdout=stdout,
                env={**os.environ, "NODE_DATACHANNEL": str(package)},
            )

    def said(self) -> list[dict[str, Any]]:
        """Return what it said: a line a request."""
        return [json.loads(line) for line in self._output.read_text().splitlines()]

    def requests(self, method: str) -> list[str]:
        """Return the paths it was asked for by a method."""
        return [line["url"] for line in self.said() if line.get("method") == method]

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running_media_server(lab: Lab, lane: int, http_port: int) -> Iterator[MediaServerProcess]:
    """Run one, and end it with the context."""
    server = MediaServerProcess(lab, install_package(), lane, http_port)
    try:
        wait_until(lambda: server.said() != [], "the media server is ready")
        yield server
    finally:
        server.end()
