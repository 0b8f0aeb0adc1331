"""What stands before the WHIP door: CORS for pages, the bearer token, the budget of offers.

Two aiohttp middlewares; whip.py puts them around its handlers.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from turnout.signaling.callers import OfferBudgets, find_client, has_token
from turnout.signaling.policy import WhipPolicy
from turnout.signaling.problem import problem

log = logging.getLogger(__name__)

PREFLIGHT_MAX_AGE_S = 3600
_EXPOSED = "Location, ETag, Link, Retry-After, Accept-Patch, WWW-Authenticate"
# What a WHIP client sends, for a preflight that names nothing.
_ASKED = "Authorization, Content-Type, If-Match"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def client_of(request: web.Request, policy: WhipPolicy) -> str:
    """Return the address of a request's client, past the proxies that are trusted."""
    forwarded_for = request.headers.getall("X-Forwarded-For", [])
    return find_client(request.remote, forwarded_for, policy.trusted_proxies)


@web.middleware
async def allow_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a page of any origin call (CORS); there are no cookies here that it could ride on."""
    response = await handler(request)
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    if request.method == "OPTIONS":
        if "Allow" in headers:
            headers["Access-Control-Allow-Methods"] = headers["Allow"]
        # Reflected, because "*" would not cover Authorization.
        asked = request.headers.get("Access-Control-Request-Headers", _ASKED)
        headers["Access-Control-Allow-Headers"] = asked
        headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
    return response


def build_guard(policy: Callable[[], WhipPolicy], is_open: Callable[[str], bool]) -> Middleware:
    """Build the middleware that asks for the token and counts offers.

    `is_open` tells the paths that nobody needs a token for. Neither needs a preflight one: a
    browser sends it without (RFC 9725 section 4.7.1).
    """
    budgets = OfferBudgets()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        holds = policy()
        if request.method == "OPTIONS" or is_open(request.path):
            return await handler(request)
        client = client_of(request, holds)
        authorization = request.headers.get("Authorization")
        if holds.token and not has_token(authorization, holds.token):
            log.info("%s %s from %s: no valid token", request.method, request.path, client)
            return _unauthorized(authorization)
        if request.method == "POST" and holds.offers_a_minute:
            wait = budgets.spend(client, holds.offers_a_minute, time.monotonic())
            if wait:
                return problem(
                    429,
                    "Too many offers",
                    f"{client} may make {holds.offers_a_minute} offers a minute; the next one in "
                    f"{math.ceil(wait)} s",
                    {"Retry-After": str(math.ceil(wait))},
                )
        return await handler(request)

    return guard


def _unauthorized(authorization: str | None) -> web.Response:
    # RFC 6750 section 3: who sent nothing is not told of an error.
    challenge = 'Bearer realm="whip"' + (', error="invalid_token"' if authorization else "")
    said = "the token is not this door's" if authorization else "none was sent"
    return problem(
        401,
        "Token needed",
        f"send 'Authorization: Bearer TOKEN' with the token that the edge was given; {said}",
        {"WWW-Authenticate": challenge},
    )
