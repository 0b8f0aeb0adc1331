"""How every process of an edge logs: one line an event on stderr, as text or as JSON.

A warning or error that says the same again within a while is counted instead of written; the
count follows when the while is over. Called once by each process, at its start.
"""

import json
import logging
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TextIO

LOG_LEVELS = ("debug", "info", "warning", "error")
# What is said again within so many seconds is counted.
REPEAT_S = 30.0
# Texts that are remembered at once; the oldest makes room.
TEXTS_MOST = 256


def set_up_logs(process: str, level: str, *, as_json: bool = False) -> None:
    """Send this process's log to stderr; `level` is a setting's log-level."""
    handler = CountingHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if as_json else _text_formatter(process))
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    set_log_level(level)
    logging.getLogger("aiohttp.server").addFilter(_is_about_us)


def set_log_level(level: str) -> None:
    """Log from `level` on: debug, info, warning or error."""
    logging.getLogger().setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), process, level, logger, message."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "process": self._process,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes a warning or error once, counts its repetitions, and says how many there were."""

    def __init__(self, stream: TextIO, repeat_s: float = REPEAT_S) -> None:
        super().__init__(stream)
        self._repeat_s = repeat_s
        # Text -> the record that was written and how often it came again; oldest first.
        self._said: OrderedDict[tuple[str, str], tuple[logging.LogRecord, int]] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count the record (logging calls this under the handler's lock)."""
        self._tell_counts(record.created - self._repeat_s)
        if record.levelno >= logging.WARNING:
            text = (record.name, record.getMessage())
            if text in self._said:
                first, count = self._said[text]
                self._said[text] = first, count + 1
                return
            if len(self._said) >= TEXTS_MOST:
                self._tell(next(iter(self._said)))
            self._said[text] = record, 0
        super().emit(record)

    def close(self) -> None:
        """Say what has been counted and not told; logging calls this when the process ends."""
        self.acquire()
        try:
            self._tell_counts(float("inf"))
        finally:
            self.release()
        super().close()

    def _tell_counts(self, until: float) -> None:
        """Tell of the texts that were written before `until` (seconds since the epoch)."""
        while self._said:
            text, (first, _) = next(iter(self._said.items()))
            if first.created > until:
                return
            self._tell(text)

    def _tell(self, text: tuple[str, str]) -> None:
        first, count = self._said.pop(text)
        if not count:
            return
        told = logging.makeLogRecord(first.__dict__)
        told.msg = f"{text[1]} ({count} more times in {self._repeat_s:g} s)"
        told.args, told.exc_info, told.exc_text = (), None, None
        super().emit(told)


def _text_formatter(process: str) -> logging.Formatter:
    name = process.replace("%", "%%")
    return logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s")


def _is_about_us(record: logging.LogRecord) -> bool:
    """Drop what aiohttp says of bytes that are no HTTP: a traceback for whatever a stranger sends.

    By the module's name: most processes of an edge never import aiohttp.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__module__ != "aiohttp.http_exceptions"
