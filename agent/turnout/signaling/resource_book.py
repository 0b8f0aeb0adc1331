"""Where each session of a media server has its resource, kept on disk for the next agent.

One file an upstream in the runtime directory (root's, 0700), because it holds ICE passwords. It is
written at once, so that no session is steered that nobody could end.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from turnout.wire.sdp import IceCredentials

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resource:
    """A session's resource at its media server, and the ICE credentials that lead to it.

    During an ICE restart there are two of these, the newest last.
    """

    url: str
    etag: str
    credentials: tuple[IceCredentials, ...] = ()

    def with_credentials(self, newest: IceCredentials, etag: str | None = None) -> Self:
        """Return it with these in front of what the client used last."""
        kept = (*self.credentials[-1:], newest)
        return replace(self, credentials=kept, etag=etag or self.etag)


class ResourceBook:
    """The resources of one media server by session id."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a file that is not ours to read is an empty book."""
        self._path = path
        self._resources: dict[str, Resource] = _read(path)

    def get(self, session_id: str) -> Resource | None:
        """Return the session's resource, None if there is none."""
        return self._resources.get(session_id)

    def put(self, session_id: str, resource: Resource) -> None:
        """Note it."""
        self._resources[session_id] = resource
        self._write()

    def remove(self, session_id: str) -> None:
        """Forget it."""
        if self._resources.pop(session_id, None) is not None:
            self._write()

    def credentials(self) -> Iterator[tuple[str, str, str]]:
        """Yield (session id, ufrag, pwd) of all, as steering takes them."""
        for session_id, resource in self._resources.items():
            for ufrag, pwd in resource.credentials:
                yield session_id, ufrag, pwd

    def _write(self) -> None:
        text = json.dumps({key: asdict(resource) for key, resource in self._resources.items()})
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        fresh.replace(self._path)


def _read(path: Path) -> dict[str, Resource]:
    try:
        records: dict[str, dict[str, Any]] = json.loads(path.read_text())
        return {
            session_id: Resource(
                url=record["url"],
                etag=record["etag"],
                credentials=tuple(IceCredentials(*pair) for pair in record["credentials"]),
            )
            for session_id, record in records.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read, its sessions end: %s", path, error)
        return {}
