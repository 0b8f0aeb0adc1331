"""turnout.toml: read, and its errors told with the line they stand on. Called by cli/options.py."""

import re
import ssl
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from turnout.errors import SettingsError
from turnout.settings.edge import Settings
from turnout.settings.keys import KEYS, Source
from turnout.settings.tables import file_name, unknown_key

DEFAULT_FILE = Path("/etc/turnout/turnout.toml")
# upstream[2].lane or limits.max_sessions, as errors name a key of a table
_IN_TABLE = re.compile(r"(?P<table>[\w-]+)(?:\[(?P<number>\d+)\])?(?:\.(?P<key>\w+))?")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file. `values` are keyed like flags: what a file writes with _ has a - here."""

    path: Path
    text: str
    values: dict[str, object]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file whose keys are all known. Raises SettingsError."""
        try:
            text = path.read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:  # not UTF-8, or not TOML: the error says where
            raise SettingsError(f"{path}: is not TOML: {error}") from error
        known = {key.file_name: key for key in KEYS.values() if key.source != Source.CHILDREN}
        values: dict[str, object] = {}
        read = cls(path, text, values)
        for name, value in table.items():
            if name not in known:
                flag = file_name(name)
                hint = f"{name}: no such setting; write it as {flag!r}"
                message = hint if flag in known else unknown_key(name, name, known)
                raise read.locate(SettingsError(message, name), name)
            values[known[name].name] = value
        return read

    @classmethod
    def read_if_there(cls, path: Path = DEFAULT_FILE) -> Self:
        """Read a file that need not exist."""
        return cls.read(path) if path.exists() else cls(path, "", {})

    def parse(self, flags: dict[str, Any]) -> Settings:
        """Return the settings of this file and the flags, which win. Raises SettingsError."""
        with self.blamed(flags):
            return Settings.parse(self.values | flags)

    @contextmanager
    def blamed(self, flags: Mapping[str, object]) -> Iterator[None]:
        """Give every SettingsError of the block its line, if its value is this file's."""
        try:
            yield
        except SettingsError as error:
            key = re.split(r"[.\[]", error.key, maxsplit=1)[0]
            if key in self.values and key not in flags:
                raise self.locate(error) from error
            raise

    def locate(self, error: SettingsError, key: str = "") -> SettingsError:
        """Return the error headed by file and line; `key`: as the file has it, if not with a _."""
        key = key or file_name(error.key)
        message = str(error)
        if message.startswith(error.key):
            message = key + message.removeprefix(error.key)
        number = self._line_of(key)
        where = f"{self.path}:{number}" if number else str(self.path)
        return SettingsError(f"{where}: {message}", error.key)

    def _line_of(self, key: str) -> int:
        """Return the line a key stands on, counted from 1; 0 if it is not to be found."""
        lines = list(enumerate(self.text.splitlines(), 1))
        found = _IN_TABLE.fullmatch(key)
        if found is None or found["table"] == key:
            return _first(lines, _assignment(key)) or _first(lines, _heading(key))
        headings = [n for n, line in lines if _heading(found["table"]).match(line)]
        place = int(found["number"] or 1) - 1
        if place >= len(headings):
            # Written as a dotted key, or as { ... } and lists of them.
            return _first(lines, _assignment(key)) or _first(lines, _assignment(found["table"]))
        start = headings[place]
        if found["key"] is None:
            return start
        below = [(n, line) for n, line in lines if n > start]
        end = next((n for n, line in below if line.lstrip().startswith("[")), len(lines) + 1)
        own = [(n, line) for n, line in below if n < end]
        return _first(own, _assignment(found["key"])) or start


def check_files(settings: Settings) -> None:
    """Look whether the files that settings name can be used. Raises SettingsError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for key, path in (("tls-cert", settings.tls_cert), ("tls-key", settings.tls_key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{key} {path}: cannot be read ({error.strerror})", key) from error
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=""
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"tls-cert {settings.tls_cert}: does not fit {settings.tls_key}, or one of them is no "
            f"PEM file without a password ({error})",
            "tls-cert",
        ) from error


def _assignment(key: str) -> re.Pattern[str]:
    return re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")


def _heading(key: str) -> re.Pattern[str]:
    return re.compile(rf"\s*\[+\s*{re.escape(key)}\s*\]+")


def _first(lines: Iterable[tuple[int, str]], pattern: re.Pattern[str]) -> int:
    return next((number for number, line in lines if pattern.match(line)), 0)
