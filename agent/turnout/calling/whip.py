"""The WHIP client's HTTP side (RFC 9725): offer out, answer in, DELETE at the end."""

import json
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp

from turnout.errors import CallError

_TIMEOUT = aiohttp.ClientTimeout(total=15)


@dataclass(frozen=True, slots=True)
class Answer:
    """The SDP answer and the absolute URL of the session's resource."""

    sdp: str
    resource: str


def check_url(url: str) -> None:
    """Raise CallError unless `url` is http(s) with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises ValueError where it is no number
    except ValueError as error:
        raise CallError(f"{url!r} is not a URL: {error}") from error
    if not usable:
        raise CallError(f"{url!r} is not a WHIP URL: give one like http://192.0.2.1:8080/whip")


async def post_offer(url: str, offer: str) -> Answer:
    """POST the offer. Raises CallError that says what the endpoint or the network said."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as http,
            http.post(
                url, data=offer.encode(), headers={"Content-Type": "application/sdp"}
            ) as reply,
        ):
            body = await reply.text()
            if reply.status != 201:
                said = _reason(reply, body)
                raise CallError(f"POST {url} was answered {reply.status} {reply.reason}: {said}")
            location = reply.headers.get("Location")
            if location is None:
                raise CallError(f"POST {url} was answered 201 without a Location (RFC 9725 4.2)")
            return Answer(body, urljoin(str(reply.url), location))
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        raise CallError(f"POST {url} failed: {_explain(error)}") from error


async def delete_session(resource: str) -> None:
    """DELETE the session's resource. Raises CallError where that is refused."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as http,
            http.delete(resource) as reply,
        ):
            if not reply.ok:
                said = _reason(reply, await reply.text())
                raise CallError(
                    f"DELETE {resource} was answered {reply.status} {reply.reason}: {said}"
                )
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        raise CallError(f"DELETE {resource} failed: {_explain(error)}") from error


def _reason(reply: aiohttp.ClientResponse, body: str) -> str:
    """Return the detail of a problem+json body (RFC 9457), else the start of whatever it is."""
    if reply.content_type == "application/problem+json":
        problem = _parse_problem(body)
        if problem:
            return problem
    return body.strip()[:200] or "no reason given"


def _parse_problem(body: str) -> str | None:
    try:
        problem = json.loads(body)
    except ValueError:
        return None
    if not isinstance(problem, dict):
        return None
    return str(problem.get("detail") or problem.get("title") or "") or None


def _explain(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionRefusedError):
            return "connection refused; is the edge running, with --http on that address and port?"
        return error.os_error.strerror or str(error.os_error)
    if isinstance(error, TimeoutError):
        return "no answer for 15 s"
    return str(error) or type(error).__name__
