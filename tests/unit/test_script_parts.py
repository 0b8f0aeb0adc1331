"""The parts of the programs behind scripts/ that decide: what ran, what is ours, what was shown."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from leftovers import _is_turnout
from live.account import describe, difference
from live.call import judge_media, whip_url
from live.client_namespace import overlap
from tiers import Outcome, conclude
from turnout.settings import Settings
from vm.guest import MARK, read_counts
from vm.image import load_order
from vm.machine import Output
from vm.packages import Kernel, VmError

JUNIT = """<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>"""


def test_junit_counts_with_a_broken_fixture_count_it_as_failed(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(JUNIT)

    assert read_counts(report) == {"passed": 3, "failed": 3, "skipped": 3}


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_guest_output_in_pieces_shows_all_but_the_reports(
    size: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    told = f'..\r\n{MARK}{{"step": "boot"}}\r\n@ no report\n@@turn\n{MARK}{{"step": "end"}}\nF.'
    output = Output()

    data = told.encode()
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])

    assert output.reports == [{"step": "boot"}, {"step": "end"}]
    assert capfdbinary.readouterr().out == b"..\n@ no report\n@@turn\nF."


def test_module_order_puts_what_is_needed_first(tmp_path: Path) -> None:
    dependencies = "kernel/net.ko: kernel/pci.ko kernel/ring.ko kernel/virtio.ko\nkernel/pci.ko:\n"
    (tmp_path / "modules.dep").write_text(dependencies)

    order = load_order(tmp_path, ["pci", "net"])

    assert order == ["kernel/pci.ko", "kernel/virtio.ko", "kernel/ring.ko", "kernel/net.ko"]
    with pytest.raises(VmError, match="no module virtio_sound"):
        load_order(tmp_path, ["virtio_sound"])


def test_kernel_packages_name_the_headers_source_half() -> None:
    assert Kernel("6.1.0-56-cloud-amd64", "6.1.192-2").packages == (
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-headers-6.1.0-56-cloud-amd64",
        "linux-headers-6.1.0-56-common",
    )


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("turnout run", True),
        ("/usr/bin/python3 /opt/turnout/.venv/bin/turnout run", True),
        ("python -m turnout agent", True),
        ("python -m turnout.transceiver --slot 0", True),
        ("vim turnout.md", False),
        ("python -m pytest turnout", False),
        ("bash -c turnout-like", False),
    ],
)
def test_process_is_ours_by_its_program_not_by_its_arguments(command: str, ours: bool) -> None:
    assert _is_turnout(command.split()) is ours


def test_account_adds_up_and_names_what_is_rare() -> None:
    before = {"received": 5, "steered__rtp": 3, "drop__no_flow": 2, "drop__empty": 0}
    after = {"received": 15, "steered__rtp": 12, "drop__no_flow": 3, "drop__empty": 0}

    text = "\n".join(describe(difference(before, after)))

    assert "9  RTP and RTCP, by flow" in text
    assert "1  dropped: no flow" in text
    assert "empty" not in text
    assert "10  received on the shared port = 9 steered + 1 dropped + 0 passed" in text


@pytest.mark.parametrize(("lost", "windows", "met"), [(0, 50, True), (1, 50, False), (0, 0, False)])
def test_call_with_loss_or_silence_is_not_good(lost: int, windows: int, met: bool) -> None:
    report = {
        "set_up": {"total_ms": 42.0},
        "tone": {"hz": 440, "windows": windows, "heard": windows},
        "media": {"sent": 250, "lost_back": lost, "lost_out": None},
    }

    results = judge_media(report, {"steered__rtp": 252})

    assert all(result.met for result in results) is met


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        ({"vip": ["127.0.0.1", "192.0.2.2"], "local": True}, "http://192.0.2.2:8080/whip"),
        ({"vip": ["2001:db8::2"]}, "http://[2001:db8::2]:8080/whip"),
        ({"vip": ["192.0.2.2"], "http": "192.0.2.3:80"}, "http://192.0.2.3:80/whip"),
    ],
)
def test_url_for_the_client_is_one_it_can_reach(flags: dict[str, object], url: str) -> None:
    assert whip_url(Settings.parse(flags)) == url


@pytest.mark.parametrize(
    ("routed", "taken"),
    [
        ("198.18.0.0/24", True),
        ("198.18.0.2/32", True),
        ("198.18.0.4/30", False),
        ("0.0.0.0/0", False),
    ],
)
def test_network_with_a_route_is_taken_unless_it_is_the_default(routed: str, taken: bool) -> None:
    assert overlap(ip_network("198.18.0.0/30"), ip_network(routed)) is taken


@pytest.mark.parametrize(
    ("failed", "left", "good"), [(0, [], True), (1, [], False), (0, ["pins in x"], False)]
)
def test_sum_of_the_tiers_fails_for_a_failure_and_for_what_is_left(
    failed: int, left: list[str], good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = [
        Outcome("unit", passed=120, failed=0, skipped=2, seconds=1.0, note=""),
        Outcome("system", passed=3, failed=failed, skipped=0, seconds=1.0, note=""),
    ]

    assert conclude(outcomes, left) is good
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"123 passed, {0 if good else 1} failed, 2 skipped"
