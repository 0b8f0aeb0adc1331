"""What `turnout doctor` makes of the processes of an edge: what each may do."""

import dataclasses

import pytest

from turnout.doctor import examine
from turnout.doctor.finding import OK, WARN
from turnout.kernel.facts.processes import Process
from unit.doctor_facts import (
    FACTS,
    not_ok,
)

AGENT = Process(
    name="agent",
    pid=7,
    uid=0,
    user="root",
    capabilities=("CAP_NET_ADMIN", "CAP_BPF"),
    may_gain=False,
    private_bytes=38 << 20,
    has_compiler=False,
)
TRANSCEIVER = dataclasses.replace(
    AGENT, name="transceiver-0", uid=65534, user="nobody", capabilities=()
)


def test_processes_of_no_instance_are_not_mentioned() -> None:
    assert not [one for one in examine(FACTS) if one.check.startswith("process")]


def test_processes_as_they_should_be_are_shown() -> None:
    shown = examine(dataclasses.replace(FACTS, processes=(AGENT, TRANSCEIVER)))
    assert [(one.level, one.what) for one in shown if one.check.startswith("process")] == [
        (OK, "root, CAP_NET_ADMIN CAP_BPF, 38 MB private, no compiler resident"),
        (OK, "nobody, no capability, 38 MB private, no compiler resident"),
    ]


@pytest.mark.parametrize(
    ("process", "said"),
    [
        (dataclasses.replace(AGENT, capabilities=("CAP_SYS_ADMIN",)), "may do more than it needs"),
        (dataclasses.replace(AGENT, may_gain=True), "may do more than it needs"),
        (dataclasses.replace(AGENT, has_compiler=True), "has a compiler in its memory"),
        (dataclasses.replace(AGENT, private_bytes=65 << 20), "has grown"),
        (dataclasses.replace(TRANSCEIVER, uid=0, user="root"), "may do more than it needs"),
        (dataclasses.replace(TRANSCEIVER, capabilities=("CAP_BPF",)), "may do more than it needs"),
    ],
)
def test_process_with_too_much_is_a_warning(process: Process, said: str) -> None:
    (finding,) = not_ok(processes=(process,))
    assert finding.level == WARN
    assert finding.what.startswith(said)
