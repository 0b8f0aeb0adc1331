"""The benchmarks run: every row is there and ends as it should. Never how long anything took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.privileged


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS / 'datapath'}"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_steer_cost_in_its_quick_form_measures_every_row() -> None:
    done = run_bench("steer-cost", "--quick", "--check")
    assert done.returncode == 0, done.stdout + done.stderr

    document = json.loads(done.stdout.splitlines()[-1])
    assert document["ok"]
    names = [result["name"] for result in document["results"]]
    for family in ("IPv4", "IPv6"):
        for way in (
            "bare XDP_TX",
            "floor",
            "hot flow, table",
            "hot flow, lru",
            "1,024 flows, table",
            "1,024 flows, lru",
            "check, flow known",
            "check of 100 bytes, learned",
            "check of 1,100 bytes, learned",
            "junk",
            "unrelated UDP",
            "unrelated TCP",
            "egress",
        ):
            assert names.count(f"{family} {way}, ns") == 1
    assert {"bytes a flow, table", "bytes a flow, lru"} <= set(names)
    assert all(result["bound"] == "" for result in document["results"])
