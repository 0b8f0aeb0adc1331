"""How the processes of an edge log: one line an event on stderr, headed by the process."""

import logging


def set_up_logs(process: str, level: str) -> None:
    """Send this process's log to stderr; `level` is a setting's log-level."""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s {process} %(levelname)s %(message)s"
    )
