"""A transceiver dies or hangs: its own calls end, nobody else's notice."""

import signal

from chaos.row import Row
from chaos.stage import Stage
from results import Result
from turnout.signaling.upstream import SILENT_SECONDS

SLOT = 0
# To the second in which the last "alive" came, and what a busy machine adds.
_SEEN_SECONDS = SILENT_SECONDS + 2.0


def kill(stage: Stage) -> list[Result]:
    """Kill it with -9."""
    before = stage.owner(SLOT)
    theirs = stage.give_up(SLOT)
    stage.kill(f"transceiver-{SLOT}")
    counters = stage.edge.counters()
    seen = stage.until(lambda: _has_left(stage, before), "the edge knows")
    statuses = [stage.resource_status(session) for session in theirs]
    elsewhere = _offer_elsewhere(stage)
    back = stage.until_whole()
    after = stage.owner(SLOT)
    dropped = _dropped(stage, counters)
    comes = _takes_calls(stage)
    next_generation = before["generation"] % 255 + 1
    return [
        Result("calls that ended with it", len(theirs), "1 or more", bool(theirs)),
        Result("seen after, s", round(seen, 2)),
        Result("its sessions' resources say", statuses, "410", set(statuses) == {410}),
        elsewhere,
        Result(
            "its generation",
            after["generation"],
            str(next_generation),
            after["generation"] == next_generation,
        ),
        Result("its flows' packets dropped, counted", dropped, "1 or more", dropped > 0),
        Result("back after, s", round(back, 1)),
        comes,
    ]


def hang(stage: Stage) -> list[Result]:
    """Stop it for so long that it is seen, then let it go on: its calls go on as well."""
    theirs = stage.give_up(SLOT)
    before = stage.owner(SLOT)
    counters = stage.edge.counters()
    stage.kill(f"transceiver-{SLOT}", signal.SIGSTOP)
    try:
        seen = stage.until(lambda: stage.owner(SLOT)["state"] == "down", "the edge sees it")
        elsewhere = _offer_elsewhere(stage)
        dropped = _dropped(stage, counters)
    finally:
        stage.kill(f"transceiver-{SLOT}", signal.SIGCONT)
    back = stage.until_whole()
    after = stage.owner(SLOT)
    heard = {call.session: call.heard for call in stage.calls()}

    def are_heard() -> bool:
        return all(call.heard > heard[call.session] for call in stage.calls())

    again = stage.until(are_heard, "its calls are heard again")
    theirs_now = stage.calls_of(SLOT)
    return [
        Result(
            "seen after, s", round(seen, 1), f"at most {_SEEN_SECONDS:g}", seen <= _SEEN_SECONDS
        ),
        elsewhere,
        Result("its flows' packets dropped, counted", dropped, "1 or more", dropped > 0),
        Result("back after, s", round(back, 2)),
        Result("its calls heard again after, s", round(back + again, 1)),
        Result(
            "its calls go on", len(theirs_now), str(len(theirs)), set(theirs_now) == set(theirs)
        ),
        Result(
            "its generation",
            after["generation"],
            str(before["generation"]),
            after["generation"] == before["generation"],
        ),
    ]


def stuck(stage: Stage) -> list[Result]:
    """Stop it for good: the supervisor ends it and starts another."""
    theirs = stage.give_up(SLOT)
    before = stage.owner(SLOT)
    stopped = stage.kill(f"transceiver-{SLOT}", signal.SIGSTOP)
    seen = stage.until(lambda: stage.owner(SLOT)["state"] == "down", "the edge sees it")
    elsewhere = _offer_elsewhere(stage)
    statuses = [stage.resource_status(session) for session in theirs]

    def is_another() -> bool:
        return stage.edge.pids()[f"transceiver-{SLOT}"] != stopped

    another = stage.until(is_another, "another one in its place")
    stage.until_whole()
    after = stage.owner(SLOT)
    return [
        Result(
            "seen after, s", round(seen, 1), f"at most {_SEEN_SECONDS:g}", seen <= _SEEN_SECONDS
        ),
        Result("its sessions' resources say", statuses, "410", set(statuses) == {410}),
        elsewhere,
        Result("another one after, s", round(seen + another, 1)),
        Result(
            "its generation",
            after["generation"],
            "another",
            after["generation"] != before["generation"],
        ),
        _takes_calls(stage),
    ]


def _has_left(stage: Stage, before: dict[str, object]) -> bool:
    now = stage.owner(SLOT)
    return now["state"] == "down" or bool(now["generation"] != before["generation"])


def _offer_elsewhere(stage: Stage) -> Result:
    """Have a session made while it is away."""
    owner = stage.offer()
    was_away = stage.owner(SLOT)["state"] == "down"
    return Result(
        "a new call went to owner",
        owner,
        f"not {SLOT}, unless it was back",
        owner != SLOT or not was_away,
    )


def _takes_calls(stage: Stage) -> Result:
    """Place calls until it has one: it has the fewest."""
    for _ in range(2 * stage.conditions.transceivers):
        session = stage.place_call()
        if session in stage.calls_of(SLOT):
            return Result("takes calls again", True, "True")
    return Result("takes calls again", False, "True", met=False)


def _dropped(stage: Stage, before: dict[str, int]) -> int:
    after = stage.edge.counters()
    return sum(
        after[name] - before[name]
        for name in ("drop__stale_owner", "drop__owner_down", "drop__no_session")
    )


ROWS = (
    Row("transceiver-kill", "kill -9 of a transceiver", kill),
    Row("transceiver-hang", "SIGSTOP to a transceiver until it is seen, then SIGCONT", hang),
    Row("transceiver-stuck", "SIGSTOP to a transceiver, for good", stuck),
)
