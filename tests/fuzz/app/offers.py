"""Offers and fragments, mutated from those of real clients, into the transceiver's answer."""

import random
from pathlib import Path

from fuzz.app.budget import Budget, Finding
from fuzz.app.callers import Room, open_room
from fuzz.app.mutations import mutate_text
from turnout.errors import SignalingError, WireError
from turnout.wire.sdp import SessionDescription
from turnout.wire.sdpfrag import IceFragment

OFFERS = Path(__file__).resolve().parents[2] / "vectors" / "offers"
FRAGMENT = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\r\na=end-of-candidates\r\n"
)


def read_offers() -> list[str]:
    """Return the offers of tests/vectors, each with CRLF."""
    texts = (path.read_bytes().decode() for path in sorted(OFFERS.glob("*.sdp")))
    return [text.replace("\r\n", "\n").replace("\n", "\r\n") for text in texts]


def fuzz_offers(seed: int, budget: Budget) -> int:
    """Have mutated offers answered until the budget is spent; returns their number.

    Raises Finding.
    """
    offers = read_offers()
    rng = random.Random(seed)
    with open_room(seed) as room:
        while budget.spend():
            offer = mutate_text(rng, rng.choice(offers), offers)
            fragment = mutate_text(rng, FRAGMENT, offers)
            try:
                _answer(room, offer)
                _restart(room, fragment)
            except Finding:
                raise
            except Exception as error:
                raise Finding(f"{error!r} for {offer!r} or {fragment!r}") from error
    return budget.steps


def _answer(room: Room, offer: str) -> None:
    try:
        session, text = room.worker.create_session(offer, None)
    except SignalingError as error:
        if not 400 <= error.status < 500 or not error.detail:
            raise Finding(f"{error.status} {error.detail!r} for {offer!r}") from error
        if room.worker.sessions:
            raise Finding(f"a session is left by the refused {offer!r}") from error
        return
    offered, answer = SessionDescription.parse(offer), SessionDescription.parse(text)
    kinds = [section.kind for section in answer.media]
    # RFC 3264 section 6: section by section. Nothing of the offer may begin a line of its own.
    if kinds != [section.kind for section in offered.media] or str(answer) != text:
        raise Finding(f"{text!r} is no answer to {offer!r}")
    used = [section for section in answer.media if not section.is_rejected]
    setups = {section.attributes.value("setup") for section in used}
    pwds = {section.attributes.value("ice-pwd") for section in used}
    newest = session.ice.newest
    if setups != {"passive"} or pwds != {newest.local_pwd}:
        raise Finding(f"{text!r} has not our part in each section, for {offer!r}")
    if str(SessionDescription.parse(str(offered))) != str(offered):
        raise Finding(f"{offer!r} reads otherwise when it is written again")
    room.worker.end_session(session.id, "deleted")


def _restart(room: Room, text: str) -> None:
    try:
        fragment = IceFragment.parse(text)
    except WireError:
        return
    if IceFragment.parse(str(fragment)).credentials != fragment.credentials:
        raise Finding(f"{text!r} reads otherwise when it is written again")
