"""The TLS side of the WHIP door: a certificate from two files, read anew when they change.

The edge serves with `context` and runs `watch` beside it. A renewed certificate is used by the
next handshake; connections that stand keep theirs.
"""

import asyncio
import logging
import ssl
from contextlib import suppress

from turnout.errors import TurnoutError
from turnout.signaling.policy import TlsFiles

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0

# What tells a file from the one before it, for certificate and key; None where there is none.
_State = tuple[tuple[int, int, int] | None, ...]


class TlsDoor:
    """An SSL context whose certificate follows its files."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises TurnoutError naming what is wrong with them."""
        self._files = files
        self._state = self._look()
        try:
            self._current = self._load()
        except (OSError, ValueError) as error:
            hint = "give others with --tls-cert and --tls-key"
            raise TurnoutError(f"{self._describe(error)}; {hint}") from error
        # Handshakes begin with this one and go on with the current one, which is never half new.
        self.context = self._current
        self.context.sni_callback = self._choose

    async def watch(self, pause: float = WATCH_SECONDS) -> None:
        """Look at the files every `pause` seconds, for ever, and take what is new."""
        while True:
            await asyncio.sleep(pause)
            self.refresh()

    def follow(self, files: TlsFiles) -> None:
        """Take other files, as after a reload; the old certificate stays until they can be used."""
        if files != self._files:
            self._files = files
            self._state = ()
            self.refresh()

    def refresh(self) -> bool:
        """Take changed files; what cannot be used is logged once and the old goes on."""
        state = self._look()
        if state == self._state:
            return False
        self._state = state
        try:
            self._current = self._load()
        except (OSError, ValueError) as error:
            log.warning("the new certificate is not used: %s", self._describe(error))
            return False
        log.info("%s: certificate read anew", self._files.cert)
        return True

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: object) -> None:
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._files.cert, self._files.key, password=_refuse_to_ask)
        return context

    def _look(self) -> _State:
        states: list[tuple[int, int, int] | None] = []
        for path in (self._files.cert, self._files.key):
            state = None
            with suppress(OSError):
                found = path.stat()
                state = (found.st_mtime_ns, found.st_size, found.st_ino)
            states.append(state)
        return tuple(states)

    def _describe(self, error: Exception) -> str:
        files = f"{self._files.cert} and {self._files.key}"
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or str(error)).replace("_", " ").lower()
            return f"{files}: no PEM certificate with its key ({reason})"
        if isinstance(error, OSError):
            return f"{files}: {error.strerror or error}"
        return f"{files}: {error}"


def _refuse_to_ask() -> str:
    # Without it OpenSSL would ask on the terminal and wait for ever.
    raise ValueError("the private key has a passphrase; take it off (openssl pkey)")
