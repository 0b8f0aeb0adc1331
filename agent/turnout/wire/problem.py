"""The body of an HTTP error as every door of Turnout gives it: problem details (RFC 9457).

Signaling, the local API and the transceiver's control build theirs here; clients read them.
"""

import json

CONTENT_TYPE = "application/problem+json"


def build_problem(status: int, title: str, detail: str) -> bytes:
    """Build the body; `detail` names the offending value and says what to do about it."""
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return json.dumps(problem).encode()


def parse_problem(body: bytes) -> tuple[str, str] | None:
    """Return title and detail of a problem, or None for a body that is none."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(problem, dict):
        return None
    title, detail = problem.get("title"), problem.get("detail")
    if not isinstance(title, str) or not isinstance(detail, str):
        return None
    return title, detail
