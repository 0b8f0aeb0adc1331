"""The one call: placed by `turnout call` in the client's namespace, then judged.

Called by __main__.py.
"""

import json
import subprocess
import sys
from ipaddress import ip_address
from typing import Any

from live.account import Counters, sum_of
from results import Result
from turnout.settings import Endpoint, Settings

CALL_SECONDS = 60

# The share of 100 ms windows with the tone that `turnout call` itself asks for.
HEARD_SHARE = 0.8


def whip_url(settings: Settings) -> str:
    """Return where a client outside finds WHIP: the door's own address, or else the first VIP."""
    door = settings.http
    if ip_address(door.host).is_unspecified:
        vip = next(vip for vip in settings.vips if not vip.is_loopback)
        door = Endpoint(str(vip), door.port)
    return f"http://{door}/whip"


def place_call(namespace: str, settings: Settings) -> dict[str, Any]:
    """Place a call from `namespace` and return its report (turnout/calling/report.py)."""
    call = [sys.executable, "-m", "turnout", "call", whip_url(settings), "--json"]
    try:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{namespace}", *call],
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        report: dict[str, Any] = json.loads(done.stdout)["calls"][0]
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"no end after {CALL_SECONDS} s"}
    except ValueError:
        return {"ok": False, "error": (done.stderr.strip() or "no report").splitlines()[-1]}
    return report


def judge_call(
    report: dict[str, Any], rose: Counters, before: dict[str, Any], after: dict[str, Any]
) -> list[Result]:
    """Turn the call's report and the edge's status before and after it into results."""
    datagrams = after["shared_port_datagrams"] - before["shared_port_datagrams"]
    sums = sum(sum_of(rose, verdict) for verdict in ("steered", "dropped", "passed"))
    verdicts = f"{sums} of {rose['received']}"
    if not report["ok"]:
        results = [Result("call", report["error"], "connects", met=False)]
    else:
        results = judge_media(report, rose)
    return [
        *results,
        Result("packets with a verdict", verdicts, "all", met=after["verdicts_add_up"]),
        Result("datagrams on the shared port's socket", datagrams, "0", met=datagrams == 0),
    ]


def judge_media(report: dict[str, Any], rose: Counters) -> list[Result]:
    """Turn the report of a call that connected into results."""
    tone, media = report["tone"], report["media"]
    steered, sent = rose["steered__rtp"], media["sent"]
    lost = media["lost_back"] + (media["lost_out"] or 0)
    set_up = f"connected in {report['set_up']['total_ms']:.0f} ms"
    heard = f"{tone['hz']} Hz in {tone['heard']} of {tone['windows']} windows"
    enough = tone["heard"] >= HEARD_SHARE * tone["windows"] > 0
    return [
        Result("call", set_up, "connects"),
        Result("tone", heard, f"in {HEARD_SHARE:.0%}", met=enough),
        Result("packets lost", lost, "0", met=lost == 0),
        Result("media steered in the kernel", steered, f"at least {sent}", met=steered >= sent),
    ]
