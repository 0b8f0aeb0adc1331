"""How the processes of an edge log: one line an event on stderr, headed by the process."""

import logging


def set_up_logs(process: str, level: str) -> None:
    """Send this process's log to stderr; `level` is a setting's log-level."""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s {process} %(levelname)s %(message)s"
    )
    logging.getLogger("aiohttp.server").addFilter(_is_about_us)


def _is_about_us(record: logging.LogRecord) -> bool:
    """Drop what aiohttp says of bytes that are no HTTP: a traceback for whatever a stranger sends.

    By the module's name: most processes of an edge never import aiohttp.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__module__ != "aiohttp.http_exceptions"
