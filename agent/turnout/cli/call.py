"""`turnout call URL`: place real calls and say how they went, for people and as JSON."""

import argparse
import asyncio
import json
from typing import Any

from turnout.calling import CallReport, place_calls
from turnout.calling.call import TONE_STEP_HZ
from turnout.calling.tone import TONE_MAX_HZ, TONE_MIN_HZ
from turnout.calling.whip import check_url
from turnout.errors import CallError, SettingsError


def add_parser(subparsers: Any) -> None:
    """Add the sub-command's parser."""
    parser = subparsers.add_parser(
        "call",
        help="place a real test call",
        description="Place real WebRTC calls: a tone goes out as Opus and must come back. "
        "Needs the extra turnout[call].",
    )
    parser.add_argument(
        "url", type=_url, metavar="URL", help="WHIP endpoint, http://HOST:8080/whip"
    )
    parser.add_argument(
        "--duration",
        type=_positive,
        default=5.0,
        metavar="SECONDS",
        help="how long the tone runs (default 5)",
    )
    parser.add_argument(
        "--tone",
        type=_tone,
        default=440,
        metavar="HZ",
        help=f"{TONE_MIN_HZ} to {TONE_MAX_HZ} (default 440)",
    )
    parser.add_argument(
        "--calls", type=_calls, default=1, metavar="N", help="so many at once, tones 50 Hz apart"
    )
    parser.add_argument(
        "--family", type=int, choices=(4, 6), help="use only candidates of this IP version"
    )
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")


def run(args: argparse.Namespace) -> int:
    """Place the calls and print the reports. Returns 0 if every call went well, else 1.

    Raises SettingsError for flags that no calls can be placed with, which is exit code 2.
    """
    most = (TONE_MAX_HZ - args.tone) // TONE_STEP_HZ + 1
    if args.calls > most:
        raise SettingsError(
            f"--calls {args.calls}: with --tone {args.tone}, {most} at most: each is "
            f"{TONE_STEP_HZ} Hz above the one before, up to {TONE_MAX_HZ}",
            "calls",
        )
    reports = asyncio.run(
        place_calls(
            args.url, args.calls, tone=args.tone, duration=args.duration, family=args.family
        )
    )
    if args.json:
        print(json.dumps({"calls": [report.to_json() for report in reports]}, indent=2))
    else:
        print("\n".join(format_report(report) for report in reports))
    return 0 if all(report.ok for report in reports) else 1


def format_report(report: CallReport) -> str:
    """Return the report as lines for a person."""
    set_up, media, tone = report.set_up, report.media, report.tone
    lines = [f"call at {tone.hz} Hz: {report.error or 'ok'}"]
    if set_up.signaling_ms is not None:
        phases = (
            ("signaling", set_up.signaling_ms),
            ("ICE", set_up.ice_ms),
            ("DTLS", set_up.dtls_ms),
            ("first media", set_up.first_media_ms),
        )
        parts = ", ".join(f"{name} {_ms(value)}" for name, value in phases)
        lines.append(f"  set-up      {_ms(set_up.total_ms)}: {parts}")
    if report.remote is not None:
        lines.append(f"  path        {report.local} -> {report.remote}")
    if media.sent:
        lost_out = "unknown" if media.lost_out is None else media.lost_out
        sent = f"{media.sent} packets sent (lost {lost_out})"
        received = f"{media.received} received (lost {media.lost_back})"
        lines += [
            f"  media       {report.duration_s:.1f} s: {sent}, {received}",
            f"  round trip  {_ms(media.rtt_ice_ms)} by ICE, {_ms(media.rtt_rtcp_ms)} by RTCP",
            f"  tone        {tone.hz} Hz in {tone.heard} of {tone.windows} windows of 100 ms",
        ]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} ms"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are seconds from 0 to 86400")
    return value


def _url(text: str) -> str:
    try:
        check_url(text)
    except CallError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _tone(text: str) -> int:
    return _whole(text, TONE_MIN_HZ, TONE_MAX_HZ, "Hz")


def _calls(text: str) -> int:
    return _whole(text, 1, (TONE_MAX_HZ - TONE_MIN_HZ) // TONE_STEP_HZ + 1, "calls")


def _whole(text: str, least: int, most: int, what: str) -> int:
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else -1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are {least} to {most} {what}")
    return value
