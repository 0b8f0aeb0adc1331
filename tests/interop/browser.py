"""A Chromium whose every socket is in the clients' namespace."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from playwright.sync_api import Browser, Playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--headless=new",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


class Place(Protocol):
    """A laboratory of any shape."""

    directory: Path

    @property
    def namespaces(self) -> Any:
        """One of them is named by `client`."""


@contextmanager
def open_browser(playwright: Playwright, lab: Place, *flags: str) -> Iterator[Browser]:
    """Start it in the clients' namespace; `flags` are added to those every test needs."""
    wrapper = lab.directory / "chromium-in-namespace"
    namespace = f"/run/netns/{lab.namespaces.client}"
    wrapper.write_text(f'#!/bin/sh\nexec nsenter --net={namespace} {CHROMIUM} "$@"\n')
    wrapper.chmod(0o755)
    browser = playwright.chromium.launch(executable_path=wrapper, args=[*FLAGS, *flags])
    try:
        yield browser
    finally:
        browser.close()
