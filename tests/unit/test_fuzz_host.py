"""The C of bpf/ on the host, a moment of fuzzing each; and proof that it finds what is there."""

import shutil
from pathlib import Path

import pytest

from fuzz.host import BPF, TARGETS, build, fuzz

# Of `programs` an input is many packets.
RUNS = {"parse": 20_000, "hashes": 20_000, "programs": 3_000}

# One fault for each target: file, what stands there, what is put in its place.
SEEDED = {
    "parse": ("parse.h", "if ((void *)(udp + 1) > p->data_end) {", "if (cursor > p->data_end) {"),
    "hashes": ("sha1.h", "for (i = 16; i < 80; i++) {", "for (i = 16; i <= 80; i++) {"),
    "programs": ("flows.h", "flow->key = p->flow_key;", ""),
}


@pytest.mark.parametrize("target", TARGETS)
def test_host_fuzz_short_finds_nothing(target: str, tmp_path: Path) -> None:
    fuzzed = fuzz(build(target, tmp_path), target, seed=1, runs=RUNS[target])

    assert fuzzed.found == ""
    assert fuzzed.inputs >= RUNS[target]


@pytest.mark.parametrize("target", TARGETS)
def test_host_fuzz_of_a_seeded_fault_finds_it(target: str, tmp_path: Path) -> None:
    name, right, wrong = SEEDED[target]
    bpf = tmp_path / "bpf"
    shutil.copytree(BPF, bpf)
    source = (bpf / name).read_text()
    assert source.count(right) == 1
    (bpf / name).write_text(source.replace(right, wrong))

    fuzzed = fuzz(build(target, tmp_path, bpf), target, seed=1, seconds=20)

    assert fuzzed.found
