"""An ended session is freed at once, whatever ended it: nothing waits for the collector."""

import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pylibsrtp
import pytest
from OpenSSL import SSL

from turnout.errors import SignalingError, WireError
from turnout.transceiver.bridge import Backend, Bridges
from turnout.transceiver.echo import Echo
from turnout.transceiver.handshakes import PLACE_SECONDS
from turnout.transceiver.session import LIVE_SECONDS
from turnout.transceiver.worker import Worker
from turnout.wire.rtp import Goodbye, ReceiverReport, build_goodbye, build_receiver_report
from turnout.wire.sdp import IceCredentials
from unit.transceiver.peer import DtlsClient, PeerIdentity, build_offer
from unit.transceiver.test_worker import Caller, until

VIP = "127.0.0.1"


def count_held() -> Counter[str]:
    """Count the objects of ours and of the transceiver's libraries that are in memory."""
    kinds = (SSL.Connection, pylibsrtp.Session, pylibsrtp.Policy)
    return Counter(
        type(one).__qualname__
        for one in gc.get_objects()
        if isinstance(one, kinds) or str(type(one).__module__).startswith("turnout.")
    )


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keep the collector away."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(
    params=[Echo, Bridges(Backend.find(f"rtp://{VIP}:9"), lambda _event: None)],
    ids=["echo", "bridge"],
)
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    worker = Worker([VIP], 0, request.param, handshakes_max=1)
    worker.start()
    yield worker
    worker.close()


async def begin_handshake(caller: Caller) -> None:
    await caller.prove()
    for datagram in caller.dtls.start():
        caller.send(datagram)
    await until(lambda: caller.session.dtls.state == "handshaking")


async def talk(caller: Caller) -> None:
    await caller.connect()
    caller.say(1, b"voice")
    await until(lambda: caller.session.media.packets_in == 1)


def pass_seconds(caller: Caller, seconds: float) -> None:
    caller.worker._timers.poll(caller.session, time.monotonic() + seconds)


async def delete_at_once(caller: Caller) -> None:
    caller.worker.end_session(caller.session.id, "deleted")


async def delete_while_it_is_probed(caller: Caller) -> None:
    caller.check()
    await caller.receive()
    await delete_at_once(caller)


async def delete_a_call(caller: Caller) -> None:
    await talk(caller)
    await delete_at_once(caller)


async def delete_during_an_ice_restart(caller: Caller) -> None:
    await talk(caller)
    caller.worker.restart_ice(caller.session.id, IceCredentials("another", "a" * 24))
    await delete_at_once(caller)


async def never_come(caller: Caller) -> None:
    pass_seconds(caller, LIVE_SECONDS + 1)


async def fall_silent_in_the_handshake(caller: Caller) -> None:
    await begin_handshake(caller)
    pass_seconds(caller, LIVE_SECONDS + 1)


async def fall_silent(caller: Caller) -> None:
    await talk(caller)
    pass_seconds(caller, LIVE_SECONDS + 1)


async def be_another(caller: Caller) -> None:
    """Shake hands with a certificate that the offer does not name."""
    caller.dtls = DtlsClient(PeerIdentity())
    await begin_handshake(caller)
    while not caller.dtls.is_connected:
        for datagram in caller.dtls.receive(await caller.receive()):
            caller.send(datagram)
    await until(lambda: bool(caller.session.ended))


async def lose_its_place(caller: Caller) -> None:
    await begin_handshake(caller)
    other = Caller(caller.worker, VIP)
    assert caller.worker.handshakes.admit(other.session, time.monotonic() + PLACE_SECONDS)
    other.worker.end_session(other.session.id, "deleted")
    other.socket.close()


async def say_bye(caller: Caller) -> None:
    await talk(caller)
    farewell = build_receiver_report(ReceiverReport(7, ())) + build_goodbye(Goodbye((7,)))
    caller.send(caller.srtp.tx.protect_rtcp(farewell))
    await until(lambda: bool(caller.session.ended))


async def close_dtls(caller: Caller) -> None:
    await talk(caller)
    for datagram in caller.dtls.close():
        caller.send(datagram)
    await until(lambda: bool(caller.session.ended))


async def move_away(caller: Caller) -> None:
    await talk(caller)
    for one in caller.worker.give_session(caller.session.id, [VIP]).sockets:
        one.close()


async def come_back_and_end(caller: Caller) -> None:
    await talk(caller)
    given = caller.worker.give_session(caller.session.id, [VIP])
    taken = caller.worker.take_session(given.state, given.sockets)
    caller.worker.end_session(taken.id, "deleted")


async def come_back_spoiled(caller: Caller) -> None:
    await talk(caller)
    given = caller.worker.give_session(caller.session.id, [VIP])
    given.state["media"]["seen"][0][3] = "bm90IHdoYXQgY2FtZQ=="
    with pytest.raises(WireError):
        caller.worker.take_session(given.state, given.sockets)
    for one in given.sockets:
        one.close()


ENDS = [
    delete_at_once,
    delete_while_it_is_probed,
    delete_a_call,
    delete_during_an_ice_restart,
    never_come,
    fall_silent_in_the_handshake,
    fall_silent,
    be_another,
    lose_its_place,
    say_bye,
    close_dtls,
    move_away,
    come_back_and_end,
    come_back_spoiled,
]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_ended_session_is_freed_without_the_collector(
    end: Callable[[Caller], Awaitable[None]], worker: Worker
) -> None:
    before = count_held()
    caller = Caller(worker, VIP)
    await end(caller)
    assert caller.session.ended
    caller.socket.close()
    del caller
    assert count_held() - before == Counter()


async def test_live_session_is_held(worker: Worker) -> None:
    before = count_held()
    caller = Caller(worker, VIP)
    held = count_held() - before
    assert {"Session", "IceAgent", "Media", "DtlsServer"} < held.keys()
    caller.socket.close()


@pytest.mark.usefixtures("uncollected")
async def test_refused_offer_leaves_nothing(worker: Worker) -> None:
    before = count_held()
    for offer in ("", build_offer().replace("opus", "none"), build_offer()[:200]):
        with pytest.raises(SignalingError):
            worker.create_session(offer, None)
    assert count_held() - before == Counter()
