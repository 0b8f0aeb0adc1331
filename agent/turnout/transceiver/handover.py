"""Hands live sessions from one transceiver process to another. Built by __main__.py.

Two processes of one host and one user speak over a private UNIX socket that keeps messages apart
(SOCK_SEQPACKET). The agent has the taker open a door and tells the giver of it and of its secret,
which both prove to know. The taker sends a greeting with a ticket; a session comes as one message,
which only that ticket admits, once, with its sockets (SCM_RIGHTS); the answer brings the next
ticket. What still arrives at the old owner's lane follows on the same socket: it never overtakes.
"""

import array
import asyncio
import hmac
import json
import logging
import math
import os
import secrets
import socket
from collections.abc import Callable, Sequence

from turnout.errors import SignalingError, WireError
from turnout.transceiver.flow import Address
from turnout.transceiver.link import (
    DATAGRAM,
    GIVER,
    MESSAGE_BYTES,
    REFUSED,
    SESSION,
    TAKEN,
    TAKER,
    Link,
    Record,
    build_proof,
    check_same_user,
)
from turnout.transceiver.moving import FORMAT, NotMovable, build_blob, parse_blob
from turnout.transceiver.worker import Given, Worker

logger = logging.getLogger(__name__)

# What comes to the old lane later than this was not on its way any more when the kernel changed.
FORWARD_SECONDS = 10.0
DOOR_SECONDS = 30.0
# Anybody on the host can connect to a door, to be turned away: no reason to turn the giver away.
_KNOCKING_MOST = 128
_SOCKETS_MOST = 4


class HandOvers:
    """Gives sessions away and takes some in, for one worker."""

    def __init__(self, worker: Worker, app: str) -> None:
        """`app` names the application; a session goes on only with the same."""
        self._worker = worker
        self._app = app
        self._links: dict[str, Link] = {}
        self._guests: set[_Guest] = set()
        self._doors: dict[socket.socket, asyncio.TimerHandle] = {}
        # Where clients and ufrags of sessions went that this process had.
        self._by_client: dict[tuple[str, Address], Link] = {}
        self._by_ufrag: dict[bytes, Link] = {}
        worker.forward_to(self._forward)

    # --- giving

    async def give(
        self, door: str, secret: str, session_ids: Sequence[str], *, until: float = math.inf
    ) -> Record:
        """Hand the sessions to the transceiver that has opened this door.

        Later than `until` (monotonic seconds) none is let go of: who asked waits no longer for
        what becomes of it.

        Returns {"moved": [{"id", "flows": [{"vip", "client"}]}], "stayed": [{"id", "reason"}],
        "lost": [{"id", "reason"}]}: what stays lives on here, what is lost has ended. Raises
        SignalingError (502) if nobody listens there, with nothing changed.
        """
        report: Record = {"moved": [], "stayed": [], "lost": []}
        link = await self._link(door, secret)
        async with link.lock:
            for session_id in session_ids:
                kind, entry = await self._give_one(link, session_id, until)
                report[kind].append({"id": session_id, **entry})
        link.unused_at = asyncio.get_running_loop().time() + FORWARD_SECONDS
        asyncio.get_running_loop().call_later(FORWARD_SECONDS + 0.1, self._close_unused, door)
        return report

    async def _link(self, door: str, secret: str) -> Link:
        link = self._links.get(door)
        if link is None or link.is_closed:
            try:
                link = await Link.open(door, secret)
            except (OSError, WireError) as error:
                reason = str(error) or "no greeting in time"
                raise SignalingError(502, "Nobody takes it", f"door {door}: {reason}") from error
            self._links[door] = link
        # In use from now: whoever wants to close it looks here.
        link.unused_at = float("inf")
        return link

    def _check_taker(self, link: Link, until: float) -> None:
        """Raise NotMovable if nothing can be given to the other transceiver now."""
        greeting = link.greeting
        if asyncio.get_running_loop().time() > until:
            raise NotMovable("it took too long to get to the other transceiver")
        if (greeting.get("format"), greeting.get("app")) != (FORMAT, self._app):
            raise NotMovable("the other transceiver is of another version or app")
        if link.is_closed:
            raise NotMovable("the other transceiver is away")
        if link.room < 1:
            raise NotMovable("the other transceiver has no room")

    async def _give_one(self, link: Link, session_id: str, until: float) -> tuple[str, Record]:
        try:
            self._check_taker(link, until)
            given = self._worker.give_session(session_id, link.greeting["vips"])
        except NotMovable as error:
            return "stayed", {"reason": str(error)}
        blob = build_blob({**given.state, "format": FORMAT, "ticket": link.ticket})
        link.send(SESSION + blob, given.sockets)
        self._note_departure(given, link)
        try:
            answer = await link.answer()
            reason = None if answer["taken"] else str(answer["reason"])
        except (OSError, WireError) as error:
            reason = str(error) or "no answer in time"
            link.close()
        if reason is not None:
            self._forget(given.clients, given.ufrags)
            self._worker.counters.sessions_spoiled += 1
            logger.error("session %s: lost on its way: %s", session_id, reason)
            return "lost", {"reason": reason}
        logger.info("session %s: handed over", session_id)
        flows = [{"vip": vip, "client": list(address[:2])} for vip, address in given.clients]
        return "moved", {"flows": flows}

    def _close_unused(self, door: str) -> None:
        link = self._links.get(door)
        if link is None or asyncio.get_running_loop().time() < link.unused_at:
            return
        del self._links[door]
        link.close()
        self._by_client = {key: to for key, to in self._by_client.items() if to is not link}
        self._by_ufrag = {key: to for key, to in self._by_ufrag.items() if to is not link}

    # --- what still comes to the old owner

    def _note_departure(self, given: Given, link: Link) -> None:
        self._by_client.update(dict.fromkeys(given.clients, link))
        self._by_ufrag.update(dict.fromkeys(given.ufrags, link))

    def _forget(self, clients: Sequence[tuple[str, Address]], ufrags: Sequence[bytes]) -> None:
        for client in clients:
            self._by_client.pop(client, None)
        for ufrag in ufrags:
            self._by_ufrag.pop(ufrag, None)

    def _forward(self, vip: str, address: Address, data: bytes, ufrag: bytes | None) -> bool:
        """Send a datagram on if its session was ours (Worker.forward_to)."""
        link = self._by_client.get((vip, address)) if ufrag is None else self._by_ufrag.get(ufrag)
        if link is None:
            return False
        head = json.dumps([vip, address]).encode()
        return link.send(b"".join((DATAGRAM, head, b"\n", data)))

    # --- taking

    def open_door(self) -> Record:
        """Let one process in that knows the secret, soon; returns {"door", "secret"}.

        An abstract address: the runtime directory is root's, and we are not.
        """
        door, secret = f"turnout-{secrets.token_hex(16)}", secrets.token_hex(16)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(f"\0{door}")
        listener.listen(_KNOCKING_MOST)
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._admit, listener, secret)
        self._doors[listener] = loop.call_later(DOOR_SECONDS, self._close_door, listener)
        return {"door": door, "secret": secret}

    def _admit(self, listener: socket.socket, secret: str) -> None:
        opened, _ = listener.accept()
        opened.setblocking(False)
        try:
            check_same_user(opened)
        except PermissionError as error:
            # Not louder: whoever knocks can do so as often as he likes.
            logger.debug("hand-off: %s", error)
            opened.close()
            return
        self._guests.add(_Guest(opened, self, secret, lambda: self._close_door(listener)))

    def _close_door(self, listener: socket.socket) -> None:
        timer = self._doors.pop(listener, None)
        if timer is not None:
            timer.cancel()
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def close(self) -> None:
        """Close every door and connection."""
        for listener in list(self._doors):
            self._close_door(listener)
        for guest in list(self._guests):
            guest.close()
        for link in self._links.values():
            link.close()

    def greet(self) -> Record:
        """Say what can be taken in here."""
        return {
            "format": FORMAT,
            "app": self._app,
            "vips": self._worker.vips,
            "room": self._worker.room,
        }

    def take(self, blob: bytes, ticket: str, sockets: list[socket.socket]) -> str:
        """Take a session in; returns its id.

        Raises SignalingError or WireError: then it is nobody's any more.
        """
        state = parse_blob(blob)
        if not hmac.compare_digest(str(state.get("ticket")), ticket):
            raise WireError("the blob was used before, or is another connection's")
        # Even if it is not taken: else two could forward to each other.
        self._forget(*_read_ways(state))
        return self._worker.take_session(state, sockets).id

    def take_back(self, session_id: str) -> None:
        """End a session whose giver does not know that it was taken, and has it ended."""
        self._worker.end_session(session_id, "failed")

    def take_datagram(self, message: memoryview) -> None:
        """Take what came to the old owner's lane. Raises WireError."""
        data = bytes(message)
        head, _, datagram = data.partition(b"\n")
        try:
            vip, address = json.loads(head)
            way = tuple(address)
        except (TypeError, ValueError) as error:
            raise WireError(f"a forwarded datagram without its way: {head[:80]!r}") from error
        self._worker.receive_forwarded(vip, way, datagram)

    def leave(self, guest: "_Guest") -> None:
        """Forget a connection that is closed."""
        self._guests.discard(guest)


class _Guest:
    """A connection from a transceiver that gives us sessions."""

    def __init__(
        self,
        opened: socket.socket,
        hand_overs: HandOvers,
        secret: str,
        on_known: Callable[[], None],
    ) -> None:
        """`on_known` is called when the other side has said the secret: nobody else is wanted."""
        self._socket = opened
        self._secret = secret
        self._on_known = on_known
        self._is_known = False
        self._hand_overs = hand_overs
        self._ticket = secrets.token_hex(16)
        self._buffer = bytearray(MESSAGE_BYTES)
        asyncio.get_running_loop().add_reader(opened, self._drain)

    def _drain(self) -> None:
        for _ in range(64):
            try:
                # From a stranger nothing is taken but bytes: the kernel discards the rest.
                length, ancillary, _, _ = self._socket.recvmsg_into(
                    [self._buffer], socket.CMSG_SPACE(4 * _SOCKETS_MOST) if self._is_known else 0
                )
            except BlockingIOError:
                return
            except OSError:
                length, ancillary = 0, []
            if length == 0:
                self.close()
                return
            sockets = _take_sockets(ancillary)
            message = memoryview(self._buffer)[:length]
            if not self._is_known:
                if not self._greet(bytes(message)):
                    self.close()
                    return
            elif message[:1] == SESSION:
                self._take(bytes(message[1:]), sockets)
            else:
                for one in sockets:
                    one.close()
                self._hand_overs.take_datagram(message[1:])

    def _greet(self, proof: bytes) -> bool:
        if not hmac.compare_digest(proof, build_proof(self._secret, GIVER).encode()):
            return False
        self._is_known = True
        self._on_known()
        greeting = {
            **self._hand_overs.greet(),
            "ticket": self._ticket,
            "proof": build_proof(self._secret, TAKER),
        }
        try:
            self._socket.send(json.dumps(greeting).encode())
        except OSError as error:
            logger.warning("hand-off: no greeting sent: %s", error)
            return False
        return True

    def _take(self, blob: bytes, sockets: list[socket.socket]) -> None:
        # Used up, whatever comes of it.
        ticket, self._ticket = self._ticket, secrets.token_hex(16)
        answer: Record = {"ticket": self._ticket}
        kind, session_id = TAKEN, ""
        try:
            # One that was cut off is no JSON.
            session_id = self._hand_overs.take(blob, ticket, sockets)
        except (SignalingError, WireError) as error:
            logger.warning("hand-off refused: %s", error)
            kind, answer["reason"] = REFUSED, str(error)
            for one in sockets:
                one.close()
        try:
            answer["room"] = self._hand_overs.greet()["room"]
            self._socket.send(kind + json.dumps(answer).encode())
        except OSError as error:
            logger.warning("hand-off: no answer sent: %s", error)
            self._hand_overs.take_back(session_id)

    def close(self) -> None:
        """Close it."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._hand_overs.leave(self)


def _read_ways(state: Record) -> tuple[list[tuple[str, Address]], list[bytes]]:
    """Return by what the datagrams of a session are known. Raises WireError."""
    try:
        clients: list[tuple[str, Address]] = []
        for flow in state["ice"]["flows"]:
            host, *numbers = flow["address"]
            clients.append((str(flow["vip"]), (str(host), *map(int, numbers))))
        return clients, [str(state["ice"]["credentials"][0]).encode()]
    except (LookupError, TypeError, ValueError) as error:
        raise WireError(f"a session without its ways: {error!r}") from error


def _take_sockets(ancillary: Sequence[tuple[int, int, bytes]]) -> list[socket.socket]:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    taken = []
    for number in numbers:
        try:
            one = socket.socket(fileno=number)
        except OSError:  # no socket: nobody here has use for it
            os.close(number)
        else:
            one.setblocking(False)
            taken.append(one)
    return taken
