"""The Python client of the local API: how software on the edge's host names owners and sessions.

    async with Client("/run/turnout/default/api.sock") as client:
        owner = await client.register_owner(lane=20500)
        session = await client.add_session(ufrag, pwd, owner["slot"])

Results are the API's JSON as it is.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from turnout.errors import ApiError

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 10.0
# Some milliseconds a call, and a transceiver that hangs may cost seconds.
HAND_OFF_S = 120.0

Record = dict[str, Any]


class Client:
    """One agent's local API. Every method raises ApiError; its status is 0 if nobody answered."""

    def __init__(self, socket_path: Path | str) -> None:
        self._path = Path(socket_path)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Late: it takes a fifth of a second, in which `run` has its children started already.
        import aiohttp  # noqa: PLC0415

        self._http = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._path)),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def status(self) -> Record:
        """Return the whole picture of the edge."""
        record: Record = await self._request("GET", "/status")
        return record

    async def owners(self) -> list[Record]:
        """Return every owner: slot, generation, lane, state, kind, sessions."""
        records: list[Record] = await self._request("GET", "/owners")
        return records

    async def register_owner(self, lane: int) -> Record:
        """Make the media server that listens on `lane` an owner; its slot names it from then on."""
        record: Record = await self._request("POST", "/owners", {"lane": lane})
        return record

    async def remove_owner(self, slot: int) -> None:
        """End a registered owner and its sessions."""
        await self._request("DELETE", f"/owners/{slot}")

    async def drain(self, slot: int, deadline_seconds: int) -> Record:
        """Have an owner take no new sessions, and end those that are left at the deadline.

        Returns the drain: slot, sessions (left), seconds_left, ended (why, "" while it goes on),
        sessions_ended. Asked again, it gets the new deadline.
        """
        body = {"deadline_seconds": deadline_seconds}
        record: Record = await self._request("POST", f"/owners/{slot}/drain", body)
        return record

    async def undrain(self, slot: int) -> Record:
        """Have a drained owner take sessions again; returns the drain as it ended."""
        record: Record = await self._request("DELETE", f"/owners/{slot}/drain")
        return record

    async def hand_off(self, slot: int, to: int | None = None) -> Record:
        """Have a transceiver hand its live calls to another, to the slot `to` or to any.

        Returns slot, moved (how many), stayed and lost: each a list of id and reason.
        """
        body = {"to": to}
        record: Record = await self._request("POST", f"/owners/{slot}/hand-off", body, HAND_OFF_S)
        return record

    async def drains(self) -> list[Record]:
        """Return every drain, those that are done too: they stand until they are lifted."""
        records: list[Record] = await self._request("GET", "/drains")
        return records

    async def sessions(self) -> list[Record]:
        """Return every session: id, owner (its slot), ufrag, kind."""
        records: list[Record] = await self._request("GET", "/sessions")
        return records

    async def add_session(self, ufrag: str, pwd: str, owner: int) -> Record:
        """Have packets for a server ufrag steered to the owner's slot; they are on return."""
        body = {"ufrag": ufrag, "pwd": pwd, "owner": owner}
        record: Record = await self._request("POST", "/sessions", body)
        return record

    async def remove_session(self, session_id: str) -> None:
        """End a session: nothing of it is steered any more."""
        await self._request("DELETE", f"/sessions/{session_id}")

    async def _request(
        self, method: str, path: str, body: Record | None = None, seconds: float = TIMEOUT_S
    ) -> Any:
        import aiohttp  # noqa: PLC0415 - as above

        if self._http is None:
            raise RuntimeError("use the client as `async with Client(socket) as client`")
        try:
            async with self._http.request(
                method,
                f"http://agent{path}",
                json=body,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, self._explain(error)) from error
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise ApiError(
                response.status, f"{method} {path}: the answer is not JSON: {content[:80]!r}"
            ) from error
        if not response.ok:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise ApiError(response.status, str(detail or f"{method} {path}: {response.reason}"))
        return answer

    def _explain(self, error: Exception) -> str:
        os_error = getattr(error, "os_error", error)
        if isinstance(os_error, FileNotFoundError | ConnectionRefusedError):
            # The socket stands in the instance's own runtime directory.
            instance = self._path.parent.name
            return f"no agent runs for instance {instance}: start one with `turnout run`"
        if isinstance(os_error, PermissionError):
            return f"{self._path}: permission denied; only root and the agent's user may ask it"
        if isinstance(error, TimeoutError):
            return f"the agent on {self._path} did not answer for {TIMEOUT_S:g} s"
        return f"{self._path}: {error or type(error).__name__}"
