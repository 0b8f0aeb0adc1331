"""libFuzzer with sanitizers on the C of bpf/, built for the host: see shim.h.

`run` is called by tests/fuzz/__main__.py, the rest by the short form in tests/unit.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from results import Result

PROJECT = Path(__file__).resolve().parents[3]
BPF = PROJECT / "bpf"
TARGETS = ("parse", "hashes", "programs")
# What was found by fuzzing once, or is hard to find: run before anything else.
VECTORS = PROJECT / "tests" / "vectors" / "fuzz"

# Packets are read where they stand, aligned or not, as BPF may.
_FLAGS = (
    "-g",
    "-O1",
    "-Wall",
    "-Werror",
    "-Wno-unused-function",
    "-Wno-pass-failed",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize=alignment",
    "-fno-sanitize-recover=all",
)
_INPUT_BYTES_MOST = 4096
_EXECUTED = re.compile(r"stat::number_of_executed_units: +(\d+)")


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """How a run went: inputs tried, and what libFuzzer said if it found something, else ""."""

    inputs: int
    found: str


def build(target: str, directory: Path, bpf: Path = BPF) -> Path:
    """Build a target over the headers in `bpf`; returns the program."""
    # steer.c asks for the kernel's own place of its UAPI headers; the host's are the same files.
    includes = directory / "include"
    includes.mkdir(exist_ok=True)
    if not (includes / "uapi").is_symlink():
        (includes / "uapi").symlink_to("/usr/include")
    source = Path(__file__).with_name(f"{target}.c")
    program = directory / f"fuzz-{target}"
    command = ["clang", *_FLAGS, f"-I{bpf}", f"-isystem{includes}", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"clang refused {target}.c for the host:\n{done.stderr[-4000:]}")
    return program


def fuzz(program: Path, target: str, *, seed: int, seconds: float = 0, runs: int = -1) -> Fuzzed:
    """Run a target for so many seconds, or so many inputs; what it finds stays beside it."""
    # Here: scapy, which the seeds are built with, takes a second to come.
    from fuzz.host.seeds import build_seeds  # noqa: PLC0415

    corpus = program.parent / f"corpus-{target}"
    if corpus.exists():
        shutil.rmtree(corpus)
    corpus.mkdir()
    for number, data in enumerate(build_seeds(target)):
        (corpus / f"seed-{number:03}").write_bytes(data)
    for vector in sorted(VECTORS.glob(f"{target}-*")):
        shutil.copy(vector, corpus / vector.name)
    command = [
        str(program),
        str(corpus),
        f"-seed={max(1, seed & 0x7FFFFFFF)}",
        f"-max_len={_INPUT_BYTES_MOST}",
        f"-artifact_prefix={program.parent}/found-{target}-",
        "-print_final_stats=1",
        f"-runs={runs}",
    ]
    if seconds:
        command.append(f"-max_total_time={max(1, round(seconds))}")
    # The targets free what they take; looking for leaks needs ptrace, which a container may lack.
    options = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, **options},
    )  # fmt: skip
    executed = _EXECUTED.search(done.stderr)
    return Fuzzed(
        int(executed[1]) if executed else 0, _blame(done.stderr) if done.returncode else ""
    )


def _blame(output: str) -> str:
    """Return the line that says what was found, and where libFuzzer left the input."""
    lines = output.splitlines()
    marks = ("does not hold", "runtime error:", "ERROR: AddressSanitizer", "ERROR: libFuzzer")
    told = [line for mark in marks for line in lines if mark in line]
    where = [line for line in lines if "Test unit written to" in line]
    return "; ".join([*told[:1], *where[:1]]) or output[-500:]


def run(seconds: float, seed: int) -> list[Result]:
    """Fuzz every target for its share of the time; an input that is found is kept in .cache."""
    kept = PROJECT / ".cache" / "fuzz"
    results = []
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as directory:
            program = build(target, Path(directory))
            fuzzed = fuzz(program, target, seed=seed, seconds=seconds / len(TARGETS))
            for found in Path(directory).glob("found-*"):
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, kept)
        results.append(Result(f"host {target}: inputs", fuzzed.inputs, "> 0", fuzzed.inputs > 0))
        results.append(
            Result(f"host {target}: faults", fuzzed.found or 0, "0", met=not fuzzed.found)
        )
    return results
