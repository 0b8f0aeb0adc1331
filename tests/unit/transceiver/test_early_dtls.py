"""DTLS that waits for its flow's proof while other flows of the session come, prove and go."""

from turnout.transceiver.ice import FLOWS_MAX
from unit.transceiver.peer import CLIENT, OTHER, Line, build_check, build_probe_answer


def test_early_dtls_of_a_flow_that_made_room_is_dropped_and_starts_no_probe() -> None:
    """Found by fuzzing: its probe was begun anew, and nobody was left to stop it."""
    line = Line()
    line.deliver(build_check(nominate=False))
    line.deliver(line.dtls.start()[0])
    for port in range(FLOWS_MAX):
        line.now += 1
        line.deliver(build_check(nominate=False), ("203.0.113.1", port))
    assert CLIENT not in line.flows
    before = line.counters.drop__dtls_unproven

    line.now += 1
    line.prove(OTHER)

    assert line.counters.drop__dtls_unproven == before + 1
    assert CLIENT not in {flow.address for flow in line.probes.values()}
    line.session.end("deleted", line.now)
    assert line.probes == {}


def test_early_dtls_counts_once_for_what_an_unproven_flow_may_be_sent() -> None:
    """Found by fuzzing: each proof of another flow counted its bytes again."""
    line = Line()
    line.deliver(build_check(nominate=False))
    line.deliver(line.dtls.start()[0])
    came = line.flows[CLIENT].bytes_in

    line.prove(OTHER)

    assert line.flows[CLIENT].bytes_in == came
    assert line.session.dtls.state == "new"


def test_early_dtls_that_waited_past_another_proof_is_taken_at_its_own() -> None:
    line = Line()
    probe, _ = line.deliver(build_check(nominate=False))
    hello = line.dtls.start()
    line.deliver(hello[0])
    line.prove(OTHER)
    assert line.session.dtls.state == "new"

    line.deliver(build_probe_answer(probe.data, CLIENT))

    assert line.session.dtls.state == "handshaking"
