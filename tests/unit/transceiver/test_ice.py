import pytest

from turnout.errors import WireError
from turnout.transceiver.ice import FLOWS_MAX
from turnout.transceiver.probing import PROBE_SECONDS, PROBE_WAITS
from turnout.wire.stun import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    open_stun,
    parse_stun,
)
from unit.transceiver.peer import (
    CLIENT,
    CREDENTIALS,
    OTHER,
    Line,
    Sent,
    build_check,
    build_probe_answer,
)


def probes_in(sent: list[Sent]) -> list[Sent]:
    return [one for one in sent if one.stun_kind == BINDING_REQUEST]


def test_check_of_a_new_address_is_probed_then_answered() -> None:
    line = Line()
    probe, success = line.deliver(build_check())
    assert [probe.stun_kind, success.stun_kind] == [BINDING_REQUEST, BINDING_SUCCESS]
    asked = open_stun(parse_stun(probe.data))
    assert asked.check_message_integrity(CREDENTIALS.remote_pwd.encode())
    assert asked.attributes["USERNAME"] == "clientufrag:serverufrag"
    assert "ICE-CONTROLLED" in asked.attributes
    answered = open_stun(parse_stun(success.data))
    assert answered.check_message_integrity(CREDENTIALS.local_pwd.encode())
    assert answered.attributes["XOR-MAPPED-ADDRESS"] == CLIENT
    assert line.session.ice.selected is None


def test_check_with_wrong_password_is_counted_and_not_answered() -> None:
    line = Line()
    assert line.deliver(build_check(pwd="x" * 24)) == []
    assert line.counters.drop__bad_integrity == 1
    assert not line.flows


def test_check_without_integrity_is_counted_and_not_answered() -> None:
    line = Line()
    bare = build_check()[:20]
    username = b"\x00\x06\x00\x0dserverufrag:c\0\0\0"
    data = bare[:2] + len(username).to_bytes(2, "big") + bare[4:] + username
    assert line.deliver(data) == []
    assert line.counters.drop__bad_integrity == 1


def test_check_that_does_not_parse_raises() -> None:
    line = Line()
    with pytest.raises(WireError):
        line.deliver(build_check()[:-4] + bytes(4))  # FINGERPRINT
    assert not line.sent


def test_check_of_a_controlled_client_is_refused_with_487() -> None:
    line = Line()
    (refusal,) = line.deliver(build_check(role="ICE-CONTROLLED"))
    assert refusal.stun_kind == BINDING_ERROR
    assert refusal.address == CLIENT
    opened = open_stun(parse_stun(refusal.data))
    assert opened.error_code == 487
    assert opened.check_message_integrity(CREDENTIALS.local_pwd.encode())
    assert not line.flows
    assert line.counters.drop__role_conflict == 1


def test_answered_probe_selects_the_first_flow_also_without_nomination() -> None:
    line = Line()
    line.prove(nominate=False)
    assert line.session.ice.selected is line.flows[CLIENT]
    assert not line.probes


def test_probe_answer_with_wrong_password_proves_nothing() -> None:
    line = Line()
    probe, _ = line.deliver(build_check())
    line.deliver(build_probe_answer(probe.data, CLIENT, pwd="x" * 24))
    assert line.session.ice.selected is None
    assert line.counters.drop__bad_integrity == 1


def test_second_flow_needs_nomination_and_proof() -> None:
    line = Line()
    line.prove()
    line.prove(OTHER, nominate=False)
    assert line.session.ice.selected is line.flows[CLIENT]
    line.deliver(build_check(), OTHER)
    assert line.session.ice.selected is line.flows[OTHER]


def test_nominated_flow_is_selected_only_when_its_probe_is_answered() -> None:
    line = Line()
    line.prove()
    probe, _ = line.deliver(build_check(), OTHER)
    assert line.session.ice.selected is line.flows[CLIENT]
    line.deliver(build_probe_answer(probe.data, OTHER), OTHER)
    assert line.session.ice.selected is line.flows[OTHER]


def test_latest_nomination_wins_over_one_that_waits_for_its_proof() -> None:
    line = Line()
    line.prove()
    probe, _ = line.deliver(build_check(), OTHER)
    line.deliver(build_check(), CLIENT)
    line.deliver(build_probe_answer(probe.data, OTHER), OTHER)
    assert line.session.ice.selected is line.flows[CLIENT]


def test_nomination_on_an_old_proof_is_probed_again() -> None:
    line = Line()
    line.prove()
    line.prove(OTHER)
    line.now += 6
    probe, _ = line.deliver(build_check(), CLIENT)
    assert probe.stun_kind == BINDING_REQUEST
    assert line.session.ice.selected is line.flows[OTHER]
    line.deliver(build_probe_answer(probe.data, CLIENT), CLIENT)
    assert line.session.ice.selected is line.flows[CLIENT]


def test_unanswered_probe_of_a_proven_flow_is_repeated_and_given_up() -> None:
    line = Line()
    line.prove()
    (first,) = line.pass_time(5)
    repeated = probes_in(line.pass_time(PROBE_SECONDS + 0.1))
    assert [one.data for one in repeated] == [first.data] * (len(PROBE_WAITS) - 1)
    assert not line.probes


def test_checks_of_an_unproven_flow_start_a_probe_at_most_every_3_seconds() -> None:
    line = Line()
    line.deliver(build_check())
    assert probes_in(line.deliver(build_check())) == []
    line.pass_time(2.9)
    assert probes_in(line.deliver(build_check())) == []
    line.now += 0.2
    assert len(probes_in(line.deliver(build_check()))) == 1


def test_selected_flow_is_probed_after_5_seconds_of_silence() -> None:
    line = Line()
    line.prove()
    assert line.pass_time(4.9) == []
    (probe,) = line.pass_time(0.15)
    assert probe.stun_kind == BINDING_REQUEST
    line.deliver(build_probe_answer(probe.data, CLIENT))
    assert line.pass_time(4.9) == []


def test_flows_past_the_cap_replace_the_longest_unused_but_not_the_selected() -> None:
    line = Line()
    line.prove()
    addresses = [("198.51.100.9", port) for port in range(1, FLOWS_MAX + 3)]
    for address in addresses:
        line.now += 0.01
        line.deliver(build_check(nominate=False), address)
    assert set(line.flows) == {CLIENT, *addresses[-(FLOWS_MAX - 1) :]}
    assert len(line.session.ice.flows) == FLOWS_MAX
    assert len(line.probes) == FLOWS_MAX - 1


def test_flow_that_is_unproven_makes_room_before_one_that_is_proven() -> None:
    line = Line()
    line.prove()
    line.prove(OTHER, nominate=False)
    for port in range(1, FLOWS_MAX + 3):  # one captured check, sent again from here and there
        line.now += 0.01
        line.deliver(build_check(nominate=False), ("198.51.100.9", port))
    assert {CLIENT, OTHER} < set(line.flows)


def test_close_leaves_neither_flow_nor_probe() -> None:
    line = Line()
    line.prove()
    line.deliver(build_check(), OTHER)
    line.session.end("deleted", line.now)
    assert (line.flows, line.probes) == ({}, {})
