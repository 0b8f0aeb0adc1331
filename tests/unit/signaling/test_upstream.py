import asyncio
from pathlib import Path

import pytest

from turnout.errors import SignalingError
from turnout.signaling import upstream as upstream_module
from turnout.signaling.offer_taker import session_location
from turnout.signaling.upstream import Upstream
from turnout.steering import Steering, mint_session_id
from unit.memory_maps import MemoryMaps, build_steering
from unit.signaling.fake_transceiver import PWD, FakeTransceiver, background, running, until

OFFERS = Path(__file__).parents[2] / "vectors" / "offers"
OFFER = (OFFERS / "chromium-audio.sdp").read_bytes().decode()


class Scene:
    """One transceiver, the upstream that follows it and what steering makes of it."""

    def __init__(self, directory: Path) -> None:
        self.maps = MemoryMaps()
        self.steering: Steering = build_steering(self.maps)
        self.transceiver = FakeTransceiver(directory / "transceiver-0.sock")
        self.upstream = Upstream(0, self.transceiver.path)
        self.ended: list[tuple[str, str]] = []

    async def follow(self) -> None:
        await self.upstream.run(self.steering, lambda *end: self.ended.append(end))

    async def until_up(self) -> None:
        await until(lambda: self.upstream.is_up)

    async def until_state(self, state: str) -> None:
        await until(lambda: 0 in self.steering.owners and self.steering.owners[0].state == state)

    async def add_session(self, ufrag: str) -> str:
        session_id = mint_session_id()
        self.transceiver.ufrags = [ufrag]
        await self.upstream.post_offer(OFFER, session_id)
        self.steering.add_session(ufrag, PWD, 0, session_id=session_id, kind="upstream")
        return session_id


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_run_hello_makes_owner_and_sessions(scene: Scene) -> None:
    session_id = mint_session_id()
    scene.transceiver.sessions[session_id] = "known"
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        owner = scene.steering.owners[0]
        assert (owner.lane, owner.kind, owner.state) == (20000, "transceiver", "active")
        session = scene.steering.sessions[session_id]
        assert (session.ufrag, session.pwd, session.slot) == ("known", PWD, 0)
        assert scene.maps.session_of("known") is not None


async def test_run_session_that_ends_is_steered_no_more(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        session_id = await scene.add_session("going")
        scene.transceiver.end_session(session_id, "timeout")
        await until(lambda: scene.ended)
        assert scene.ended == [(session_id, "timeout")]
        assert session_id not in scene.steering.sessions
        assert scene.maps.session_of("going") is None


async def test_run_event_of_another_owner_s_session_changes_nothing(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        scene.steering.register_owner(20001, slot=1, incarnation=9, kind="transceiver")
        other = scene.steering.add_session("other", PWD, 1)
        mine = await scene.add_session("mine")
        scene.transceiver.tell(event="session_ended", id=other.id, reason="bye")
        scene.transceiver.end_session(mine)
        await until(lambda: scene.ended)
        assert scene.ended == [(mine, "bye")]
        assert other.id in scene.steering.sessions


async def test_run_second_hello_ends_the_stream_and_counts_for_nothing(scene: Scene) -> None:
    """One that is broken into must not have generations counted up as fast as it can write."""
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        before = scene.steering.owners[0]
        scene.transceiver.tell(event="hello", incarnation=2, lane=20000, sessions=[])
        await until(lambda: not scene.upstream.is_up)
        await scene.until_up()
        assert scene.steering.owners[0] == before


async def test_run_transceiver_that_dies_takes_only_its_own_sessions(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        other_owner = scene.steering.register_owner(
            20001, slot=1, incarnation=9, kind="transceiver"
        )
        other = scene.steering.add_session("other", PWD, 1)
        mine = await scene.add_session("mine")
        await scene.transceiver.stop()
        await scene.until_state("down")
        assert scene.ended == [(mine, "owner_down")]
        assert scene.maps.session_of("mine") is None
        assert scene.steering.owners[1] == other_owner
        assert scene.steering.sessions[other.id] == other
        assert scene.maps.session_of("other") is not None


async def test_run_reborn_transceiver_gets_a_new_generation(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        first = scene.steering.owners[0]
        await scene.transceiver.stop()
        await scene.until_state("down")
        scene.transceiver.incarnation = 2
        await scene.transceiver.start()
        await scene.until_state("active")
        assert scene.steering.owners[0].generation == first.generation + 1


async def test_run_stream_that_breaks_comes_back_with_its_sessions(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        session_id = await scene.add_session("kept")
        generation = scene.steering.owners[0].generation
        scene.transceiver.end_streams()
        await until(lambda: scene.ended)
        await until(lambda: session_id in scene.steering.sessions)
        assert scene.steering.owners[0].generation == generation
        assert scene.maps.session_of("kept") is not None


async def test_run_silent_transceiver_is_down(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "SILENT_SECONDS", 1)
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        session_id = await scene.add_session("silent")
        await until(lambda: scene.ended)
        assert scene.ended[0] == (session_id, "owner_down")


async def test_run_adopted_owner_nobody_answers_for_is_down_in_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "SILENT_SECONDS", 0.05)
    scene.steering.register_owner(20000, slot=0, incarnation=7, kind="transceiver")
    scene.steering.add_session("left", PWD, 0)
    adopting = build_steering(scene.maps)
    assert adopting.unconfirmed == 1
    scene.steering = adopting
    async with background(scene.follow()):
        await scene.until_state("down")
        assert adopting.unconfirmed == 0
        assert scene.maps.session_of("left") is None


async def test_run_adopted_session_is_confirmed_by_the_hello(scene: Scene) -> None:
    scene.steering.register_owner(20000, slot=0, incarnation=1, kind="transceiver")
    session_id = scene.steering.add_session("left", PWD, 0).id
    scene.transceiver.sessions[session_id] = "left"
    scene.steering = build_steering(scene.maps)
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        assert session_id in scene.steering.sessions
        assert scene.steering.owners[0].generation == 1


async def test_run_words_that_are_no_events_are_a_broken_stream(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        await scene.add_session("mine")
        scene.transceiver.tell(event="session_ended", id=None)
        await until(lambda: scene.ended)
        await scene.until_up()


async def test_run_event_of_a_later_version_is_passed_over(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        session_id = await scene.add_session("mine")
        scene.transceiver.tell(event="from the future")
        scene.transceiver.end_session(session_id)
        await until(lambda: scene.ended)
        assert scene.ended == [(session_id, "bye")]


async def test_run_hello_larger_than_a_read_buffer_is_read_whole(scene: Scene) -> None:
    scene.transceiver.sessions = {mint_session_id(): f"ufrag{n:05}" for n in range(5000)}
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        assert len(scene.steering.sessions) == 5000


async def test_run_cancelled_leaves_the_owner_as_it_is(scene: Scene) -> None:
    async with running(scene.transceiver):
        async with background(scene.follow()):
            await scene.until_up()
            session_id = await scene.add_session("mine")
        assert scene.steering.owners[0].state == "active"
        assert session_id in scene.steering.sessions


async def test_post_offer_answer_comes_with_its_location(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        session_id = mint_session_id()
        answer = await scene.upstream.post_offer(OFFER, session_id)
        assert answer.location == session_location(session_id)
        assert answer.body.startswith("v=0\r\n")
        assert list(scene.transceiver.sessions) == [session_id]
        await scene.upstream.delete(answer.location)
        assert scene.transceiver.sessions == {}
        await scene.upstream.delete(answer.location)


async def test_post_offer_before_the_hello_is_refused(scene: Scene) -> None:
    async with running(scene.transceiver):
        with pytest.raises(SignalingError, match="transceiver 0 is starting") as caught:
            await scene.upstream.post_offer(OFFER, mint_session_id())
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("refuse", 422, "offer a=setup:actpass"),
        ("break", 502, "transceiver 0: it answered 500"),
        ("long", 502, "more than 1048576 bytes"),
        ("hang up", 503, "transceiver 0 on"),
    ],
)
async def test_post_offer_that_fails_says_whose_fault_it_is(
    scene: Scene, fault: str, status: int, said: str
) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        scene.transceiver.fault = fault
        with pytest.raises(SignalingError) as caught:
            await scene.upstream.post_offer(OFFER, mint_session_id())
        assert caught.value.status == status
        assert said in caught.value.detail


async def test_post_offer_that_takes_too_long_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "OFFER_TIMEOUT_S", 0.05)
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        scene.transceiver.fault = "wait"
        with pytest.raises(SignalingError) as caught:
            await scene.upstream.post_offer(OFFER, mint_session_id())
        assert caught.value.status == 503


async def test_post_offer_across_a_new_hello_is_not_believed(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        scene.transceiver.fault = "wait"
        post = asyncio.create_task(scene.upstream.post_offer(OFFER, mint_session_id()))
        await scene.transceiver.asked.wait()
        scene.transceiver.end_streams()
        await until(lambda: not scene.upstream.is_up)
        await scene.until_up()
        scene.transceiver.release.set()
        with pytest.raises(SignalingError, match="ended the session"):
            await post


async def test_post_offer_whose_session_ends_before_the_answer_is_not_believed(
    scene: Scene,
) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        marker = await scene.add_session("marker")
        scene.transceiver.fault = "wait"
        scene.transceiver.asked.clear()
        session_id = mint_session_id()
        post = asyncio.create_task(scene.upstream.post_offer(OFFER, session_id))
        await scene.transceiver.asked.wait()
        scene.transceiver.end_session(session_id, "failed")
        scene.transceiver.end_session(marker)
        await until(lambda: scene.ended == [(marker, "bye")])
        scene.transceiver.release.set()
        with pytest.raises(SignalingError, match="ended the session"):
            await post
