"""Attaching carefully: kernel/attach and kernel/loader on real interfaces, without an edge."""

import json
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from system.lab import Lab, wait_until
from system.namespaces import CLIENT_ADDRESSES, INTERFACE, command, run_in_namespace
from turnout.errors import (
    AttachError,
    ForeignProgram,
    KernelError,
    LayoutError,
    StackedDevices,
    VerifierError,
)
from turnout.kernel import bpf, connectivity, loader
from turnout.kernel.attach import (
    FILTER_HANDLE,
    FILTER_PRIORITY,
    Attachment,
    attach,
    attached,
    detach,
    detach_all,
)
from turnout.kernel.compile import FLOWS_MAX, flow_buckets, join_source
from turnout.kernel.connectivity import Gateways
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.kernel.swap import Swap

pytestmark = pytest.mark.privileged
T = TypeVar("T")

# Two instructions: r0 = TC_ACT_SHOT; exit.
DROP_ALL = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)


class Bench:
    """Pins, a runtime directory and the edge's namespace of a laboratory without an edge."""

    def __init__(self, lab: Lab) -> None:
        self.namespace = lab.namespaces.edge
        self.client_namespace = lab.namespaces.client
        self.pins = Pins(lab.edge.bpffs, "bench")
        self.runtime = lab.directory / "run"
        self.runtime.mkdir()

    def inside(self, work: Callable[[], T]) -> T:
        return run_in_namespace(self.namespace, work)

    def attach(self, name: str = INTERFACE, mode: str = "native") -> Attachment:
        return self.inside(lambda: attach(self.pins, self.runtime, name, mode))

    def attached(self) -> list[Attachment]:
        return self.inside(lambda: attached(self.pins))

    def detach_all(self) -> list[str]:
        return self.inside(lambda: detach_all(self.pins, self.runtime))

    def send_to(self, address: str) -> None:
        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"anything", (address, 9))

        self.inside(send)

    def ip(self, *arguments: str) -> str:
        return command("ip", "-n", self.namespace, *arguments)

    def tc(self, *arguments: str) -> str:
        return command("tc", "-n", self.namespace, *arguments)


@pytest.fixture
def bench(bare_lab: Lab) -> Bench:
    built = Bench(bare_lab)
    loader.load(built.pins)
    return built


def test_attach_native_detach_leaves_the_interface_as_it_was(bench: Bench) -> None:
    before = bench.tc("qdisc", "show"), bench.ip("link", "show", INTERFACE)

    attachment = bench.attach()

    assert (attachment.mode, attachment.egress, attachment.note) == ("native", True, "")
    assert [(a.interface, a.mode, a.egress) for a in bench.attached()] == [
        (INTERFACE, "native", True)
    ]
    bench.detach_all()
    assert (bench.tc("qdisc", "show"), bench.ip("link", "show", INTERFACE)) == before
    assert not bench.pins.root.exists()


def test_attach_jumbo_interface_takes_the_program_native(bench: Bench) -> None:
    command("ip", "-n", bench.client_namespace, "link", "set", INTERFACE, "mtu", "9001")
    bench.ip("link", "set", INTERFACE, "mtu", "9001")
    assert bench.attach().mode == "native"


def test_attach_native_where_no_driver_has_it_is_generic_and_says_so(bench: Bench) -> None:
    attachment = bench.attach("lo", "native")
    assert attachment.mode == "generic"
    assert "native mode refused by lo" in attachment.note


def test_attach_beside_foreign_filter_both_stay_and_run(bench: Bench) -> None:
    foreign = bench.pins.bpffs / "foreign"
    with bpf.load_program(bpf.SCHED_CLS, "foreign", DROP_ALL) as program:
        bpf.pin(program, foreign)
    bench.tc("qdisc", "add", "dev", INTERFACE, "clsact")
    bench.tc(
        *("filter", "add", "dev", INTERFACE, "egress", "prio", "50000"),
        *("bpf", "direct-action", "pinned", str(foreign)),
    )
    bench.attach()

    bench.send_to(CLIENT_ADDRESSES[4][0])

    # Ours stands first and said TC_ACT_UNSPEC, so the foreign one ran and dropped.
    clsact = json.loads(bench.tc("-s", "-j", "qdisc", "show", "dev", INTERFACE))
    assert [q["drops"] for q in clsact if q["kind"] == "clsact"] > [0]
    bench.detach_all()
    left = bench.tc("filter", "show", "dev", INTERFACE, "egress")
    assert "foreign" in left
    assert "turnout" not in left


@pytest.mark.parametrize("first", [INTERFACE, "br0"])
def test_attach_stacked_devices_is_refused(bench: Bench, first: str) -> None:
    bench.ip("link", "add", "br0", "type", "bridge")
    bench.ip("link", "set", INTERFACE, "master", "br0")
    bench.attach(first, "generic")
    second = {INTERFACE: "br0", "br0": INTERFACE}[first]

    with pytest.raises(StackedDevices, match=f"{second} and {first}"):
        bench.attach(second, "generic")


def test_attach_bridge_over_a_bridge_port_far_below_is_refused(bench: Bench) -> None:
    """A stack of three: the ends know nothing of each other."""
    bench.ip("link", "add", "br0", "type", "bridge")
    bench.ip("link", "set", INTERFACE, "master", "br0")
    bench.ip("link", "add", "mac0", "link", "br0", "type", "macvlan")
    bench.attach(INTERFACE, "generic")

    with pytest.raises(StackedDevices, match=f"mac0 and {INTERFACE}"):
        bench.attach("mac0", "generic")


def test_attach_interface_deleted_and_made_again_is_attached_again(bench: Bench) -> None:
    bench.ip("link", "add", "tmp0", "type", "veth", "peer", "name", "tmp1")
    bench.attach("tmp0")
    bench.ip("link", "del", "tmp0")
    assert bench.attached() == []

    bench.ip("link", "add", "tmp0", "type", "veth", "peer", "name", "tmp1")

    assert bench.attach("tmp0").mode == "native"


def test_detach_interface_that_was_renamed_leaves_nothing(bench: Bench) -> None:
    bench.attach()
    bench.ip("link", "set", INTERFACE, "name", "renamed")
    assert bench.attach("renamed").mode == "native"

    removed = bench.inside(lambda: detach(bench.pins, bench.runtime, "renamed"))

    assert [line.split(" ")[0] for line in removed] == ["detached", "removed", "removed"]
    assert bench.attached() == []
    assert "clsact" not in bench.tc("qdisc", "show")


def test_detach_all_leaves_a_clsact_that_took_the_place_of_ours(bench: Bench) -> None:
    bench.ip("link", "add", "tmp0", "type", "veth", "peer", "name", "tmp1")
    bench.attach("tmp0")
    bench.ip("link", "del", "tmp0")
    bench.ip("link", "add", "tmp0", "type", "veth", "peer", "name", "tmp1")
    bench.tc("qdisc", "add", "dev", "tmp0", "clsact")

    bench.detach_all()

    assert "clsact" in bench.tc("qdisc", "show", "dev", "tmp0")


@pytest.mark.parametrize("pinned", [1, 2, 3])
def test_load_after_a_loader_killed_between_its_last_steps_heals(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, pinned: int
) -> None:
    """Killed when `pinned` of the new programs were pinned and no old one was unpinned."""
    source = join_source()
    monkeypatch.setattr(loader, "join_source", lambda: source + "\n/* another version */\n")
    old = {path.name: path for path in (bench.pins.directory / "programs").iterdir()}
    with ExitStack() as programs:
        opened = {name: programs.enter_context(bpf.open_pin(path)) for name, path in old.items()}
        loader.load(bench.pins)
        for name, program in opened.items():
            bpf.pin(program, old[name])
    new = sorted(set((bench.pins.directory / "programs").iterdir()) - set(old.values()))
    for path in new[pinned:]:
        path.unlink()

    loader.load(bench.pins)

    assert bench.attach().mode == "native"


def test_load_same_source_adopts_without_compiling(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*_: object) -> None:
        pytest.fail("compiled what is pinned already")

    monkeypatch.setattr(loader, "compile_programs", compiled)
    report = loader.load(bench.pins)
    assert not report.compiled


def test_load_new_source_swaps_the_program_and_keeps_the_flows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.attach()
    bucket = {"entry": [0, 5, 0, 0, 0, 0, 0], "age": [1] * 7}
    with Maps.open(bench.pins) as maps:
        maps.flows.update(3, bucket)
    source = join_source()
    monkeypatch.setattr(loader, "join_source", lambda: source + "\n/* another version */\n")

    report = loader.load(bench.pins)
    before = _program_of_the_interface(bench)
    attachment = bench.attach()

    assert report.compiled
    assert _program_of_the_interface(bench) != before
    assert (attachment.mode, attachment.note) == ("native", "")
    with Maps.open(bench.pins) as maps:
        assert maps.flows.lookup(3) == bucket


def test_attach_again_that_is_refused_leaves_what_steers(bench: Bench) -> None:
    bench.attach()
    running = _program_of_the_interface(bench)
    foreign = bench.pins.bpffs / "foreign"
    with bpf.load_program(bpf.SCHED_CLS, "foreign", DROP_ALL) as program:
        bpf.pin(program, foreign)
    bench.tc(
        *("filter", "replace", "dev", INTERFACE, "egress", "handle", hex(FILTER_HANDLE)),
        *("prio", str(FILTER_PRIORITY), "bpf", "direct-action", "pinned", str(foreign)),
    )

    with pytest.raises(ForeignProgram, match="remove it"):
        bench.attach()

    assert _program_of_the_interface(bench) == running


def test_swap_after_which_the_gateway_is_silent_goes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = CLIENT_ADDRESSES[4][0]
    bench.attach()
    running = _program_of_the_interface(bench)
    bench.ip("route", "add", "default", "via", gateway)
    bench.send_to(gateway)
    wait_until(lambda: "lladdr" in bench.ip("neigh", "show", gateway), "the gateway is known")
    source = join_source()
    monkeypatch.setattr(loader, "join_source", lambda: source + "\n/* another version */\n")
    swapped = []

    def settle() -> None:
        # All is swapped by now, and nobody was asked anything since.
        swapped.append(_program_of_the_interface(bench))
        monkeypatch.setattr(connectivity, "_PATIENCE_SECONDS", 0.2)
        for_client = ("ip", "-n", bench.client_namespace, "address", "del", f"{gateway}/24")
        command(*for_client, "dev", INTERFACE)

    with loader.prepare(bench.pins) as ready:
        assert ready.old_egress is not None
        old_egress = ready.old_egress
        swap = bench.inside(lambda: Swap(bench.pins, ready.programs, old_egress))
        with pytest.raises(AttachError, match=f"gateway {gateway} on {INTERFACE} answered before"):
            bench.inside(lambda: swap.run(settle))
        ready.withdraw()

    assert swapped
    assert swapped != [running]
    assert _program_of_the_interface(bench) == running
    assert not ready.programs["ingress"].exists()


def test_load_map_of_another_size_is_refused_by_name(bench: Bench) -> None:
    had = flow_buckets(FLOWS_MAX)
    with pytest.raises(LayoutError, match=f"pinned map flows has max_entries {had}"):
        loader.load(bench.pins, flows_max=4096)


def test_load_struct_of_another_layout_is_refused_by_field(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = join_source().replace("__u16 lane;\n\t__u8 gen", "__u16 path;\n\t__u8 gen")
    source = source.replace("owner->lane", "owner->path")
    monkeypatch.setattr(loader, "join_source", lambda: source)
    with pytest.raises(LayoutError, match=r"owners has value .*lane@8.* instead of .*path@8"):
        loader.load(bench.pins)


def test_load_program_that_the_verifier_refuses_leaves_what_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.attach()
    before = _program_of_the_interface(bench)
    source = join_source().replace(
        "verdict = parse(p);", "verdict = parse(p); verdict += *(int *)p->data;", 1
    )
    monkeypatch.setattr(loader, "join_source", lambda: source)

    with pytest.raises(VerifierError, match=r"program ingress(.|\n)*invalid access"):
        loader.load(bench.pins)

    bench.attach()
    assert _program_of_the_interface(bench) == before


def test_load_where_no_bpffs_can_be_is_a_clear_error(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(KernelError, match=str(place)):
        loader.load(Pins(place, "bench"))


def test_gateway_that_stops_answering_undoes_the_attach(bench: Bench) -> None:
    gateway = CLIENT_ADDRESSES[4][0]
    bench.ip("route", "add", "default", "via", gateway)
    bench.send_to(gateway)
    wait_until(lambda: "lladdr" in bench.ip("neigh", "show", gateway), "the gateway is known")
    gateways = bench.inside(lambda: Gateways.of(INTERFACE))
    assert gateways.answering == [gateway]
    bench.inside(gateways.check)

    command("ip", "-n", bench.client_namespace, "address", "del", f"{gateway}/24", "dev", INTERFACE)

    with pytest.raises(AttachError, match=f"gateway {gateway} on {INTERFACE} answered before"):
        bench.inside(gateways.check)


def _program_of_the_interface(bench: Bench) -> int:
    (place,) = [a for a in bench.attached() if a.interface == INTERFACE]
    with bpf.open_pin(bench.pins.link(place.ifindex)) as link:
        return bpf.link_program(link)
