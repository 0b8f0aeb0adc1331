"""The supervisor is killed, and another `turnout run` adopts what the kernel has."""

import time

from chaos.row import Row
from chaos.stage import Stage
from results import Result


def kill(stage: Stage) -> list[Result]:
    """Kill it with -9: agent and transceivers die with it. Then start another."""
    stage.give_up()
    before = {owner["slot"]: owner for owner in stage.edge.api("GET", "/owners")}
    stage.kill("run")
    stage.edge.wait_gone()
    begun = time.monotonic()
    stage.start_edge()
    ready = time.monotonic() - begun
    took = stage.until_whole()
    after = {owner["slot"]: owner for owner in stage.edge.api("GET", "/owners")}
    kept = [
        slot
        for slot, owner in before.items()
        if owner["kind"] == "registered"
        and after[slot]["generation"] == owner["generation"]
        and after[slot]["state"] == "active"
    ]
    registered = sum(owner["kind"] == "registered" for owner in before.values())
    reborn = [
        slot
        for slot, owner in before.items()
        if owner["kind"] == "transceiver" and after[slot]["generation"] != owner["generation"]
    ]
    return [
        Result("registered owners kept", len(kept), str(registered), len(kept) == registered),
        Result(
            "transceivers of a new generation",
            len(reborn),
            str(stage.conditions.transceivers),
            len(reborn) == stage.conditions.transceivers,
        ),
        Result("ready again after, s", round(ready, 2)),
        Result("from ready to every transceiver heard, s", round(took, 1)),
    ]


ROWS = (Row("supervisor-kill", "kill -9 of `turnout run`, and another one that adopts", kill),)
