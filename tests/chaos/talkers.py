"""Many clients of the edge's own transceivers in one process, live down to SRTP.

Each posts an offer, checks, does the DTLS handshake, and sends its numbered packets and checks as
the numbered flows do (traffic/clients.py), but as SRTP under keys of its own; the transceiver's
application, `echo`, sends them back under its keys. What does not authenticate, a packet under an
index that has come before included, is counted. A worker of the stage, in the clients' namespace.
"""

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pylibsrtp

from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES
from traffic.checks import BINDING_REQUEST, BINDING_SUCCESS, build_check
from traffic.clients import Clients, Flow
from traffic.datagrams import CHECKS, Numbered, build_transaction, parse
from traffic.offering import Answer, end_session, post_offer
from traffic.registering import SHARED_PORT
from traffic.worker import answer
from turnout.transceiver.srtp import Srtp
from turnout.wire.rtp import is_rtcp
from unit.transceiver.peer import CREDENTIALS, DtlsClient, build_offer, build_probe_answer

FIRST_PORT = 31_000  # past those of the numbered flows
_PATIENCE_SECONDS = 20.0
_WAIT_SECONDS = 0.2  # for an answer, before a check or a flight is sent again
# Their sequence numbers go round one after the other, from four seconds after the start on.
_WRAP_FIRST, _WRAP_STEP = 200, 17
_EMPTY_REPORT = bytes((0x80, 201, 0, 1))


class Talkers(Clients):
    """All of them; the mark tells their packets from others' in the clear, under SRTP."""

    def __init__(
        self, pipe: Connection, namespace: str, mark: bytes, answers: list[Answer]
    ) -> None:
        flows = []
        for number, one in enumerate(answers):
            version = (4, 6)[number % 2]
            source = (CLIENT_ADDRESSES[version][number // 2 % 2], FIRST_PORT + number)
            flows.append(Flow(source, (EDGE_ADDRESSES[version], SHARED_PORT), one.credentials))
        super().__init__(pipe, namespace, mark, flows)
        self._answers = answers
        self._protected: dict[int, tuple[int, bytes]] = {}  # by stream, the latest and its number
        self._refused = 0
        self._srtp = [self._connect(client) for client in range(len(flows))]
        for stream in range(len(flows)):
            self._next[stream] = 0x10000 - _WRAP_FIRST - _WRAP_STEP * stream

    def _obey(self, verb: str, *arguments: object) -> None:
        if verb == "refused":
            answer(self._pipe, self._refused)
        elif verb == "leave":
            for one in self._answers:
                end_session(one.location)
            answer(self._pipe)
        else:
            super()._obey(verb, *arguments)

    def _connect(self, client: int) -> Srtp:
        """Check until that is answered, then do the handshake. RuntimeError."""
        opened = self._sockets[client]
        opened.settimeout(_WAIT_SECONDS)
        check = self._build_check(client + CHECKS, 0)
        dtls, flight = DtlsClient(), [check]
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not dtls.is_connected:
            for datagram in flight:
                opened.send(datagram)
            if time.monotonic() > deadline:
                raise RuntimeError(f"talker {client}: no DTLS after {_PATIENCE_SECONDS:g} s")
            try:
                came = opened.recv(2048)
            except TimeoutError:
                flight = dtls.retransmit() or [check]
            else:
                flight = list(self._step(client, dtls, came))
        opened.setblocking(False)
        return dtls.derive_srtp()

    def _step(self, client: int, dtls: DtlsClient, came: bytes) -> Iterator[bytes]:
        kind = int.from_bytes(came[:2])
        if kind == BINDING_REQUEST:
            yield self._answer_probe(client, came)
        elif kind == BINDING_SUCCESS:
            yield from dtls.start()
        elif 20 <= came[0] < 64:
            yield from dtls.receive(came)

    def _answer_probe(self, client: int, probe: bytes) -> bytes:
        return build_probe_answer(probe, self._flows[client].target)

    def _build_check(self, stream: int, number: int) -> bytes:
        session = self._flows[stream - CHECKS].session
        transaction = build_transaction(self._mark, stream, number)
        return build_check(session.ufrag, session.pwd, transaction, CREDENTIALS.remote_ufrag)

    def _build_media(self, stream: int, number: int) -> bytes:
        latest, datagram = self._protected.get(stream, (-1, b""))
        if latest != number:  # one that could not be sent is not protected a second time
            datagram = self._srtp[stream].tx.protect(super()._build_media(stream, number))
            self._protected[stream] = number, datagram
        return datagram

    def _send(self, stream: int) -> None:
        super()._send(stream)
        if stream >= CHECKS:  # and an RTCP report that says nothing
            client = stream - CHECKS
            report = _EMPTY_REPORT + client.to_bytes(4, "big")
            self._sockets[client].send(self._srtp[client].protect_rtcp(report))

    def _read(self, client: int, datagram: bytes) -> Numbered | None:
        if datagram[0] < 128:
            if int.from_bytes(datagram[:2]) == BINDING_REQUEST:
                self._sockets[client].send(self._answer_probe(client, datagram))
                return None
            return parse(self._mark, datagram)
        rx = self._srtp[client].rx
        try:
            if is_rtcp(datagram):
                rx.unprotect_rtcp(datagram)
                return None
            return parse(self._mark, rx.unprotect(datagram))
        except pylibsrtp.Error:
            self._refused += 1
            return None


def play(pipe: Connection, namespace: str, mark: bytes, whip: str, count: int) -> None:
    """Connect everybody, say so, and go on until the stage ends us."""
    offer = build_offer()
    answers = [post_offer(whip, offer) for _ in range(count)]
    talkers = Talkers(pipe, namespace, mark, answers)
    answer(pipe)
    talkers.run()
