"""One heap of wishes for all sessions."""

import asyncio
from typing import Any, cast

from turnout.transceiver.flow import NEVER
from turnout.transceiver.timers import Timers
from unit.transceiver.test_worker import until


class Sleeper:
    """What the timers see of a session: it wants to be polled every 5 ms."""

    def __init__(self, name: str, *, is_broken: bool = False) -> None:
        self.id = name
        self.wake_at = NEVER
        self.polls = 0
        self.is_broken = is_broken

    def poll(self, now: float) -> float:
        self.polls += 1
        if self.is_broken and self.polls > 1:
            raise RuntimeError("a bug")
        return now + 0.005


def sleep(*sleepers: Sleeper) -> tuple[dict[str, Sleeper], Timers]:
    sessions = {one.id: one for one in sleepers}
    timers = Timers(cast("Any", sessions))
    for one in sleepers:
        timers.poll(cast("Any", one), asyncio.get_running_loop().time())
    return sessions, timers


async def test_session_whose_poll_raises_does_not_stop_the_others() -> None:
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    broken, well = Sleeper("broken", is_broken=True), Sleeper("well")
    _, timers = sleep(broken, well)
    await until(lambda: well.polls == 5)
    assert (broken.polls, len(raised)) == (2, 1)
    timers.close()


async def test_session_that_has_ended_is_not_polled() -> None:
    ended, well = Sleeper("ended"), Sleeper("well")
    sessions, timers = sleep(ended, well)
    del sessions["ended"]
    await until(lambda: well.polls == 3)
    assert ended.polls == 1
    timers.close()
