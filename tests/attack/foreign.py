"""What an attack has done to the edge's flow table."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from traffic.sessions import Tuple
from traffic.table import Table


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is not as it should be."""

    changed: tuple[str, ...]  # live tuples that are gone or another's
    created: tuple[
        str, ...
    ]  # tuples that are nobody's, led to a session that is not the attacker's
    replayed: int  # such tuples, led to the session whose own check was replayed
    his_own: int  # tuples that are nobody's, led to the attacker's own sessions


def compare(
    before: Table,
    after: Table,
    *,
    live: Mapping[Tuple, int],
    ours: Collection[Tuple],
    his: Collection[int],
    may_replay: bool,
) -> Foreign:
    """Judge the table after an attack.

    `live` is the session of each live tuple, `ours` all tuples that our clients have used, `his`
    the attacker's sessions.
    """
    changed = [
        f"{host}:{port} {before.get((host, port))} -> {after.get((host, port))}"
        for (host, port), session in live.items()
        if after.get((host, port)) != before.get((host, port))
        or after[host, port].session != session
    ]
    created: list[str] = []
    replayed = his_own = 0
    sessions = set(live.values())
    for source, flow in after.items():
        if source in live or source in ours:
            continue
        if flow.session in his:
            his_own += 1
        elif may_replay and flow.session in sessions:
            replayed += 1
        elif before.get(source) != flow:
            created.append(f"{source[0]}:{source[1]} {flow}")
    return Foreign(tuple(changed), tuple(created), replayed, his_own)
