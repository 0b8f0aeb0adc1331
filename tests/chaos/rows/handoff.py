"""`turnout drain --hand-off`: live calls go to another transceiver, and back; nobody notices."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.row import Row
from chaos.stage import Stage
from results import Result

# Everybody is on the first one, then on the other, then on the first one again.
SLOT, OTHER = 0, 1
_SAID = re.compile(r"owner \d+: (\d+) calls handed over, (\d+) stay, (\d+) lost")


@contextmanager
def all_on_one(stage: Stage) -> Iterator[None]:
    """Have all calls on one transceiver, and talkers with them."""
    owner = f"/owners/{OTHER}"
    stage.edge.api("POST", f"{owner}/drain", {"deadline_seconds": 600})
    stage.edge.api("POST", f"{owner}/hand-off", {"to": SLOT})
    with stage.talking():
        stage.edge.api("DELETE", f"{owner}/drain")
        yield


def hand_off(stage: Stage) -> list[Result]:
    """Hand all of them over, and back."""
    dropped, handshakes = _dropped(stage), _dtls(stage)
    found = [
        *_move(stage, "handed over", SLOT, OTHER),
        *_move(stage, "handed back", OTHER, SLOT),
    ]
    dropped, handshakes = _dropped(stage) - dropped, _dtls(stage) - handshakes
    return [
        *found,
        Result("packets dropped by kernel and transceivers", dropped, "0", dropped == 0),
        Result("DTLS that transceivers have seen", handshakes, "0", handshakes == 0),
    ]


def _move(stage: Stage, name: str, slot: int, to: int) -> list[Result]:
    theirs = _sessions(stage, slot)
    wanted = {stage.chromium_session} if stage.chromium_session else set()
    wanted |= {call.session for call in stage.calls()}
    drained = stage.turnout("drain", str(slot), "--hand-off")
    said = _SAID.search(drained.stderr)
    counts = tuple(map(int, said.groups())) if said else drained.stderr.strip()
    now = _sessions(stage, to)
    taker = stage.offer()
    stage.edge.api("DELETE", f"/owners/{slot}/drain")
    all_of_them = (len(theirs), 0, 0)
    least = stage.conditions.talkers + len(wanted)
    everybody = wanted <= theirs <= now and len(theirs) >= least
    return [
        Result(f"{name}: exit code", drained.returncode, "0", drained.returncode == 0),
        Result(f"{name}, stayed, lost", counts, str(all_of_them), counts == all_of_them),
        Result(f"{name}: everybody, real calls too", everybody, "True", everybody),
        Result(f"{name}: a new call went to owner", taker, str(to), taker == to),
    ]


def _sessions(stage: Stage, slot: int) -> set[str]:
    return {one["id"] for one in stage.edge.api("GET", "/sessions") if one["owner"] == slot}


def _dropped(stage: Stage) -> int:
    counters = [stage.edge.counters()]
    counters += [stage.edge.transceiver(slot)["counters"] for slot in (SLOT, OTHER)]
    return sum(
        count for one in counters for name, count in one.items() if name.startswith("drop__")
    )


def _dtls(stage: Stage) -> int:
    return sum(stage.edge.transceiver(slot)["counters"]["handled__dtls"] for slot in (SLOT, OTHER))


ROWS = (
    Row(
        "hand-off",
        "`turnout drain --hand-off` of a transceiver with 50 more live calls, and back",
        hand_off,
        gap_ms=40,
        among=all_on_one,
    ),
)
