"""The agent ends, one way or another, and the next one takes over."""

import random
import signal
import time

from chaos.row import Row
from chaos.stage import Stage
from chaos.truth import find_lies
from results import Result

SETUPS_A_SECOND = 20.0


def end_agent(stage: Stage, number: signal.Signals) -> list[Result]:
    """Send the agent a signal, and wait until the next one has reconciled everything."""
    pids = stage.edge.pids()
    sessions = stage.edge.api("GET", "/sessions")
    calls = {one["id"] for one in sessions if one["kind"] == "upstream"}
    back = _replace_agent(stage, number)
    whole = stage.until_whole()
    known = {one["id"] for one in stage.edge.api("GET", "/sessions")}
    untouched = _others(stage.edge.pids()) == _others(pids)
    return [
        Result("the next agent serves after, s", round(back + whole, 1)),
        Result(
            "calls it knows",
            len(known & calls),
            str(len(calls)),
            known >= calls,
        ),
        Result("other processes untouched", untouched, "True", untouched),
        Result(
            "sessions of registered owners that wait for them",
            stage.edge.status()["unconfirmed_sessions"],
        ),
    ]


def _replace_agent(stage: Stage, number: signal.Signals) -> float:
    """End the agent and wait for the next process; returns the seconds that took."""
    ended = stage.kill("agent", number)
    return stage.until(lambda: stage.edge.pids()["agent"] != ended, "another agent")


def _others(pids: dict[str, int]) -> dict[str, int]:
    return {name: pid for name, pid in pids.items() if name != "agent"}


def kill(stage: Stage) -> list[Result]:
    """Kill it with -9."""
    return end_agent(stage, signal.SIGKILL)


def restart(stage: Stage) -> list[Result]:
    """End it by SIGTERM, it alone."""
    return end_agent(stage, signal.SIGTERM)


def keep_killing(stage: Stage) -> list[Result]:
    """Kill it again and again, at any moment of set-ups and of its own start."""
    chance = random.Random("agent-kills")
    pids = stage.edge.pids()
    with stage.setting_up(SETUPS_A_SECOND, kept=0.5) as outcome:
        for number in range(stage.conditions.kills):
            # Each third time the one that has only just come, before it has adopted anything.
            if number % 3:
                stage.until_whole()
            time.sleep(chance.uniform(0.0, 0.6))
            _replace_agent(stage, signal.SIGKILL)
        stage.until_whole()
        time.sleep(0.5)  # some that nothing befalls
    (setups,) = outcome
    all_owners = stage.edge.api("GET", "/owners")
    owners = [one["slot"] for one in all_owners if one["kind"] == "registered"]
    untouched = _others(stage.edge.pids()) == _others(pids)
    lies = find_lies(stage.edge, stage.registered, owners)

    def is_true() -> bool:
        # Sessions that were kept end now, one after the other: of each, flows wait for the sweep.
        found = set(find_lies(stage.edge, stage.registered, owners)) if lies else set()
        lies[:] = [lie for lie in lies if lie in found]
        return not lies

    try:
        took = round(stage.until(is_true, "the kernel steers what is true"), 1)
    except AssertionError:
        took = float("inf")
    return [
        Result("kills", stage.conditions.kills),
        Result(
            "set-ups",
            f"{setups.made} made, {setups.failed} met a dead agent",
            "1 or more made",
            setups.made > 0,
        ),
        Result("other processes untouched", untouched, "True", untouched),
        Result("what the kernel has wrong", lies[:3] or "nothing", "nothing", not lies),
        Result("right after, s", took),
    ]


ROWS = (
    Row("agent-kill", "kill -9 of the agent; the supervisor starts another", kill, gap_ms=40),
    Row("agent-restart", "SIGTERM to the agent alone", restart, gap_ms=40),
    Row("agent-kills", "kill -9 of the agent, at any moment of set-ups", keep_killing),
)
