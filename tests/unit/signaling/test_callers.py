from ipaddress import ip_network

import pytest

from turnout.signaling import callers
from turnout.signaling.callers import OfferBudgets, find_client, has_token

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("remote", "forwarded_for", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        # A stranger says whatever he likes.
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:5000"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:5000"], "2001:db8::7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["198.51.100.7"], "unknown"),
    ],
)
def test_client_is_the_nearest_stranger(
    remote: str | None, forwarded_for: list[str], client: str
) -> None:
    assert find_client(remote, forwarded_for, PROXIES) == client


@pytest.mark.parametrize(
    ("authorization", "is_right"),
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("Bearer  secret ", True),
        ("Bearer Secret", False),
        ("Bearer secret2", False),
        ("Bearer", False),
        ("Basic secret", False),
        ("secret", False),
        ("Bearer s\u00e4cret", False),
        ("Bearer \udcff", False),
        ("", False),
        (None, False),
    ],
)
def test_token_is_right_or_not(authorization: str | None, is_right: bool) -> None:
    assert has_token(authorization, "secret") is is_right


def test_budget_is_a_minute_s_worth_and_fills_again() -> None:
    budgets = OfferBudgets()
    assert [budgets.spend("a", 3, 100.0) for _ in range(4)] == [0, 0, 0, pytest.approx(20)]
    assert budgets.spend("a", 3, 110.0) == pytest.approx(10)
    assert budgets.spend("a", 3, 120.0) == 0
    assert budgets.spend("a", 3, 120.0) == pytest.approx(20)
    assert [budgets.spend("a", 3, 1000.0) for _ in range(4)][2:] == [0, pytest.approx(20)]


def test_budget_is_each_client_s_own_and_a_v6_subscriber_s() -> None:
    budgets = OfferBudgets()
    assert budgets.spend("198.51.100.1", 1, 0.0) == 0
    assert budgets.spend("198.51.100.2", 1, 0.0) == 0
    assert budgets.spend("2001:db8:0:1::1", 1, 0.0) == 0
    assert budgets.spend("2001:db8:0:1::2", 1, 0.0) > 0
    assert budgets.spend("2001:db8:0:2::1", 1, 0.0) == 0


def test_budgets_of_too_many_clients_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "CLIENTS_MOST", 2)
    budgets = OfferBudgets()
    for client in ("a", "b", "c"):
        assert budgets.spend(client, 1, 0.0) == 0
    assert budgets.spend("c", 1, 0.0) > 0
    assert budgets.spend("a", 1, 0.0) == 0
