"""What a session, a network and a flow may cost: verifications, failed checks, packets a tick."""

from collections.abc import Iterator

import packets as p
import pytest
from collisions import ports_of_one_meter

from datapath import (
    CHECK_BUDGET,
    DOWN,
    GENERATION,
    OTHER_SESSION,
    OTHER_SLOT,
    PREFIX_FAILURES,
    SESSION,
    SLOT,
    XDP_DROP,
    Datapath,
)
from fuzz.program import one_cpu

REQUEST = {"received": 1, "steered__stun_request": 1}
LEARNED = REQUEST | {"flow__learned": 1}
MEDIA = {"received": 1, "steered__rtp": 1}
BAD, BUDGET, FAILED, RATE = (
    {"received": 1, f"drop__{reason}": 1}
    for reason in ("bad_integrity", "verify_budget", "failed_checks", "flow_rate")
)
WRONG = p.stun(p.BINDING_REQUEST, p.attribute(p.USERNAME, b"srvr:c"))
OTHER_WRONG = p.stun(p.BINDING_REQUEST, p.attribute(p.USERNAME, b"other:c"))
CHECK, OTHER_CHECK = p.check("srvr:c"), p.check("other:c")


@pytest.fixture
def edge(datapath: Datapath) -> Iterator[Datapath]:
    """Two sessions; all on one CPU, for the meters of flows are per CPU."""
    datapath.add_session("srvr", SESSION, SLOT)
    datapath.add_session("other", OTHER_SESSION, OTHER_SLOT)
    with one_cpu():
        yield datapath


def receive(edge: Datapath, payload: bytes, source: str = p.CLIENT4, port: int = 1) -> object:
    """What a payload from there was counted as."""
    build = p.ip6 if ":" in source else p.ip4
    return edge.receive(bytes(build(payload, source=source, sport=port))).counted


def spend_budget(edge: Datapath) -> None:
    """With genuine checks, from anywhere."""
    for number in range(CHECK_BUDGET):
        assert (
            "steered__stun_request"
            in edge.receive(bytes(p.ip4(CHECK, source=p.STRANGER4, sport=1000 + number))).counted
        )


def fail(edge: Datapath, source: str, payload: bytes = WRONG) -> None:
    """So many failed checks from one source that its network may make no more."""
    for port in range(1000, 1000 + PREFIX_FAILURES):
        assert receive(edge, payload, source, port) == BAD


def test_budget_of_a_session_is_spent_by_genuine_checks_too(edge: Datapath) -> None:
    spend_budget(edge)
    flows = edge.flows()

    outcome = edge.receive(bytes(p.ip4(CHECK)))

    assert (outcome.verdict, outcome.counted) == (XDP_DROP, BUDGET)
    assert edge.flows() == flows


def test_budget_is_new_in_the_next_tick(edge: Datapath) -> None:
    edge.set(session_flows=16)
    spend_budget(edge)
    edge.pass_ticks(6)
    assert edge.session("srvr")["checks"] == CHECK_BUDGET

    assert receive(edge, CHECK) == LEARNED | {"flow__capped": 1}
    assert edge.session("srvr")["checks"] == 1


def test_budget_is_of_one_session(edge: Datapath) -> None:
    spend_budget(edge)
    assert receive(edge, OTHER_CHECK) == LEARNED


def test_spent_budget_keeps_nobody_from_his_own_flow(edge: Datapath) -> None:
    receive(edge, CHECK)
    for _ in range(2):
        for number in range(CHECK_BUDGET):
            receive(edge, CHECK, p.STRANGER4, number)

    assert receive(edge, CHECK) == REQUEST
    assert receive(edge, p.RTP) == MEDIA


def test_own_checks_cost_no_budget(edge: Datapath) -> None:
    for _ in range(CHECK_BUDGET + 5):
        receive(edge, CHECK)
    assert edge.session("srvr")["checks"] == 1


def test_check_of_a_healed_flow_of_its_owner_costs_no_budget(edge: Datapath) -> None:
    """After a lost table the flows of all calls are healed ones, and their checks go on."""
    edge.send(bytes(p.from_lane(p.RTP, dport=1)))
    spend_budget(edge)

    assert receive(edge, CHECK) == REQUEST


def test_dropped_for_the_budget_is_no_failure(edge: Datapath) -> None:
    spend_budget(edge)
    receive(edge, WRONG)
    assert edge.session("srvr")["failures"] == 0


def test_prefix_that_failed_too_often_is_verified_no_more(edge: Datapath) -> None:
    fail(edge, p.CLIENT4)

    # Right or wrong: the session's checks fail, and nobody can tell whose this one is.
    assert receive(edge, WRONG) == FAILED
    assert receive(edge, CHECK) == FAILED
    assert edge.flows() == 0
    assert edge.session("srvr")["failures"] == PREFIX_FAILURES


def test_failures_are_forgotten_in_the_next_tick(edge: Datapath) -> None:
    fail(edge, p.CLIENT4)
    edge.pass_ticks(1)

    assert receive(edge, CHECK) == LEARNED


def test_session_whose_checks_do_not_fail_is_not_kept_out(edge: Datapath) -> None:
    """Behind one address of a carrier's NAT or a TURN server are many."""
    fail(edge, p.CLIENT4)

    assert receive(edge, OTHER_CHECK) == LEARNED
    assert receive(edge, OTHER_WRONG, port=2) == BAD
    assert receive(edge, OTHER_CHECK, port=3) == FAILED


@pytest.mark.parametrize(
    ("one", "same", "another"),
    [
        ("198.51.100.7", "198.51.100.255", "198.51.101.7"),
        ("198.51.100.7", "198.51.100.0", "198.51.99.7"),
        ("2001:db8:1::7", "2001:db8:1:ffff::8", "2001:db8:2::7"),
        ("2001:db8:1::7", "2001:db8:1:0:ffff::8", "2001:db8:0:ffff::7"),
    ],
)
def test_prefix_is_a_24_or_a_48(edge: Datapath, one: str, same: str, another: str) -> None:
    fail(edge, one)

    assert receive(edge, CHECK, same) == FAILED
    assert receive(edge, CHECK, another) == LEARNED


def test_genuine_checks_are_never_charged_to_a_prefix(edge: Datapath) -> None:
    for number in range(PREFIX_FAILURES * 2):
        receive(edge, CHECK, port=number)

    fail(edge, p.CLIENT4)


def test_too_long_a_message_is_charged_to_nobody(edge: Datapath) -> None:
    too_long = p.check("srvr:c", p.attribute(p.SOFTWARE, bytes(1400)))
    for port in range(CHECK_BUDGET + PREFIX_FAILURES):
        assert receive(edge, too_long, port=port) == {"received": 1, "drop__stun_too_long": 1}

    assert receive(edge, CHECK) == LEARNED


def test_flow_may_send_so_many_packets_a_tick(edge: Datapath) -> None:
    """Media, handshake, requests: all of a flow is counted together."""
    edge.set(flow_packets=4)
    receive(edge, CHECK)
    sent = [receive(edge, payload) for payload in (CHECK, p.RTP, p.DTLS_HANDSHAKE, p.RTCP)]
    assert not [counted for counted in sent if counted == RATE]

    for payload in (p.RTP, p.DTLS_APPLICATION, p.stun(p.BINDING_SUCCESS), CHECK):
        outcome = edge.receive(bytes(p.ip4(payload, sport=1)))
        assert (outcome.verdict, outcome.counted) == (XDP_DROP, RATE)

    edge.pass_ticks(1)
    assert receive(edge, p.RTP) == MEDIA


def test_flow_over_its_rate_takes_nothing_from_another(edge: Datapath) -> None:
    edge.set(flow_packets=2)
    edge.add_flow(port=1)
    edge.add_flow(port=2)
    assert [receive(edge, p.RTP, port=1) for _ in range(3)] == [MEDIA, MEDIA, RATE]

    assert [receive(edge, p.RTP, port=2) for _ in range(3)] == [MEDIA, MEDIA, RATE]


def test_flow_rate_0_is_no_limit(edge: Datapath) -> None:
    edge.set(flow_packets=0)
    edge.add_flow(port=1)
    assert all(receive(edge, p.RTP) == MEDIA for _ in range(500))


def test_flow_that_shares_a_meter_pays_for_nobody(edge: Datapath) -> None:
    """It only counts the other one down: who sends more than all others there is found out."""
    one, other = ports_of_one_meter()
    edge.set(flow_packets=3)
    for port in (one, other):
        edge.add_flow(port=port)
    assert [receive(edge, p.RTP, port=one) for _ in range(4)] == [MEDIA, MEDIA, MEDIA, RATE]

    assert receive(edge, p.RTP, port=other) == MEDIA
    assert [receive(edge, p.RTP, port=one) for _ in range(2)] == [MEDIA, RATE]

    # Three take it down to nothing, the fourth has the place.
    assert [receive(edge, p.RTP, port=other) for _ in range(4)] == [MEDIA] * 4
    assert [receive(edge, p.RTP, port=other) for _ in range(3)] == [MEDIA, MEDIA, RATE]


def test_packets_over_the_rate_are_no_sign_of_life(edge: Datapath) -> None:
    edge.set(flow_packets=1)
    edge.add_flow(port=1, silent_ticks=4)
    receive(edge, p.stun(p.BINDING_SUCCESS))

    assert receive(edge, p.RTP) == RATE

    flow = edge.flow(port=1)
    assert flow is not None
    assert flow["age"] == (edge.tick - 4) % 256


def test_packets_to_nobody_are_not_metered(edge: Datapath) -> None:
    edge.set(flow_packets=2)
    edge.add_flow(port=1)
    edge.add_owner(SLOT, p.LANE, state=DOWN)
    for _ in range(5):
        assert receive(edge, p.RTP) == {"received": 1, "drop__owner_down": 1}
    edge.add_owner(SLOT, p.LANE, generation=GENERATION)

    assert [receive(edge, p.RTP) for _ in range(3)] == [MEDIA, MEDIA, RATE]


@pytest.mark.parametrize("payload", [OTHER_CHECK, OTHER_WRONG], ids=["genuine", "wrong"])
def test_requests_of_others_are_never_charged_to_a_flow(edge: Datapath, payload: bytes) -> None:
    """Whoever forges the address of a call cannot spend its packets."""
    edge.set(flow_packets=3)
    edge.add_flow(port=1, ufrag_hash=edge.session_key("srvr"))
    for _ in range(PREFIX_FAILURES):
        assert receive(edge, payload) in (REQUEST | {"flow__contested": 1}, BAD)

    assert [receive(edge, p.RTP) for _ in range(4)] == [MEDIA, MEDIA, MEDIA, RATE]


def test_forged_requests_of_the_own_session_are_charged(edge: Datapath) -> None:
    """Unverified, so it is the flow's rate that bounds them."""
    edge.set(flow_packets=2)
    edge.add_flow(port=1, ufrag_hash=edge.session_key("srvr"))

    assert [receive(edge, WRONG) for _ in range(3)] == [REQUEST, REQUEST, RATE]
