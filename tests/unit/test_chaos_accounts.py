"""What the rows of scripts/chaos take for an explanation of a loss."""

from collections import Counter
from dataclasses import replace

import pytest

from chaos.measured import Measured
from chaos.measuring import _explained
from traffic.datagrams import CHECKS

NOTHING = Measured(
    sent=1000,
    lost_out=0,
    lost=0,
    full_sockets=0,
    in_outage=0,
    gap_ms=20.0,
    calls_sent=1000,
    calls_lost=0,
    calls_full_sockets=0,
    calls_gap_ms=20.0,
    calls_down=0,
    talked=0,
    talkers_gap_ms=0.0,
    refused=0,
    full_links=0,
    strayed=[],
    counters={},
    adds_up=True,
)


@pytest.mark.parametrize(
    ("lost", "calls_lost", "sockets", "links", "unexplained"),
    [
        (0, 0, 0, 0, (0, 0)),
        (1, 0, 0, 0, (1, 0)),
        (0, 1, 0, 0, (0, 1)),
        (3, 0, 3, 0, (0, 0)),
        (3, 1, 3, 0, (0, 1)),
        (3, 1, 1, 2, (0, 1)),  # what explains a flow's packet does not explain a call's
        (3, 1, 1, 3, (0, 0)),
        (0, 2, 0, 1, (0, 1)),
        (0, -1, 0, 0, (0, 0)),  # a duplicate, as RTP counts
    ],
)
def test_loss_is_explained_once(
    lost: int, calls_lost: int, sockets: int, links: int, unexplained: tuple[int, int]
) -> None:
    measured = replace(
        NOTHING, lost=lost, full_sockets=sockets, calls_lost=calls_lost, full_links=links
    )
    assert (measured.unexplained, measured.calls_unexplained) == unexplained


def test_full_socket_explains_its_own_client_only() -> None:
    lost = Counter({0: 2, CHECKS: 1, 1: 4})
    assert _explained(lost, Counter({500: 2, 502: 9}), 500) == 2
    assert _explained(lost, Counter({500: 9, 501: 1}), 500) == 4
