"""The fuzzers of the transceiver and of the doors, a few steps each, and the same each time."""

import pytest

from fuzz.app.budget import Budget, Finding
from fuzz.app.callers import open_room
from fuzz.app.offers import fuzz_offers
from fuzz.doors import fuzz_doors
from fuzz.transceiver import INSIDER, Attack, fuzz_datagrams, fuzz_parsers
from turnout.transceiver.media import Media
from turnout.transceiver.session import Session


@pytest.mark.parametrize("seed", [1, 2])
def test_datagrams_short_find_nothing(seed: int) -> None:
    assert fuzz_datagrams(seed, Budget(steps=1500)) > 1500


def test_offers_short_find_nothing() -> None:
    assert fuzz_offers(1, Budget(steps=400)) == 400


def test_parsers_short_find_nothing() -> None:
    assert fuzz_parsers(1, Budget(steps=3000)) == 3000


def test_doors_short_find_nothing() -> None:
    assert fuzz_doors(1, Budget(steps=150)) == 150


def test_datagram_that_is_not_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fuzzer that finds nothing might look at nothing: what it must see, it sees."""
    monkeypatch.setattr(Media, "receive", lambda *_arguments: False)

    with pytest.raises(Finding, match="0 fates"):
        fuzz_datagrams(1, Budget(steps=1500))


def test_exception_of_a_session_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyError("what was not thought of")

    with open_room(1) as room:
        attack = Attack(room)
        with monkeypatch.context() as patched:
            patched.setattr(Session, "receive_dtls", fail)
            with pytest.raises(Finding, match="KeyError"):
                attack.send_dtls_as_insider()
        # What it holds goes on.
        assert room.callers[INSIDER] is attack.insider
