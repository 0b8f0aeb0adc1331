"""What the log says of a host that changes."""

from dataclasses import replace

from turnout.host_news import tell_news
from turnout.kernel.follow import HostPicture
from turnout.kernel.host import DefaultRoute, Interface

ETH0 = Interface("eth0", 2, 1500, "veth", True, True, 0, 0, "", 0)
ROUTE = DefaultRoute("eth0", 2, None, None, 0)
BEFORE = HostPicture({"eth0": ETH0, "eth9": ETH0}, frozenset(), (ROUTE,), ("eth0",))


def news(*links: Interface, routes: tuple[DefaultRoute, ...] = (ROUTE,)) -> list[str]:
    now = replace(BEFORE, links={link.name: link for link in links}, default_routes=routes)
    return list(tell_news(BEFORE, now, ["eth0"]))


def test_tell_news_of_the_same_is_nothing() -> None:
    assert news(ETH0) == []


def test_tell_news_of_a_link_says_what_has_changed() -> None:
    assert news(replace(ETH0, up=False, mtu=1400)) == [
        "eth0: the link was set down",
        "eth0: MTU 1500, now 1400",
    ]
    assert news() == ["eth0: the interface is gone"]
    assert news(replace(ETH0, index=7)) == ["eth0: another interface has taken this name"]


def test_tell_news_of_an_interface_that_returns() -> None:
    gone = replace(BEFORE, links={})

    assert list(tell_news(gone, BEFORE, ["eth0"])) == ["eth0: the interface is there again"]


def test_tell_news_of_the_default_route() -> None:
    other = replace(ROUTE, interface="eth1")

    assert news(ETH0, routes=(other,)) == [
        "default route: by no gateway on eth0, now by no gateway on eth1"
    ]
    assert news(ETH0, routes=()) == ["default route: by no gateway on eth0, now none"]
