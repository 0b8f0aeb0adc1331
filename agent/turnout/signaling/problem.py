"""HTTP errors as problem+json (RFC 9457), the same at the WHIP door and at the local API."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from turnout.errors import SignalingError
from turnout.wire import sdpfrag
from turnout.wire.problem import CONTENT_TYPE, build_problem

log = logging.getLogger(__name__)

# Seconds a client should wait after a 503: as long as a transceiver takes to come back.
RETRY_AFTER_S = 2


def problem(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Build an error response; a 503 says when to come back."""
    response = web.Response(
        status=status,
        body=build_problem(status, title, detail),
        content_type=CONTENT_TYPE,
        headers=headers,
    )
    if status == web.HTTPServiceUnavailable.status_code:
        response.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return response


def build_problem_middleware(doors: str) -> Middleware:
    """Build the middleware that turns every error into a problem; a 404 names the `doors`."""

    @web.middleware
    async def answer_errors(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except SignalingError as error:
            response = problem(error.status, error.title, error.detail)
            if request.method == "PATCH" and error.status == 415:
                response.headers["Accept-Patch"] = sdpfrag.CONTENT_TYPE
            return response
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _problem_of(request, error, doors)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return problem(
                500,
                "Internal error",
                "this request hit a fault of the edge; its log has the trace",
            )

    return answer_errors


def _problem_of(request: web.Request, error: web.HTTPException, doors: str) -> web.Response:
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    if isinstance(error, web.HTTPNotFound):
        detail = f"{request.path} is nothing here; here are: {doors}"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"{request.method} is not served on {request.path}; here are: {doors}"
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        limit = request.client_max_size
        detail = f"the body is larger than {limit} bytes, which is the most that is taken"
    else:
        detail = error.text or error.reason
    return problem(error.status, error.reason, detail, headers)
