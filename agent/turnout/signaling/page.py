"""The page at `/`: a browser calls this edge and hears itself, with no client to install.

The files stand in `page/` and are served as they are; whip.py hangs them into its application. The
page speaks WHIP to the same origin and loads nothing from anywhere else.
"""

from pathlib import Path

from aiohttp import web

FILES = Path(__file__).with_name("page")

# Each file by its path here; what is not listed is not served.
_PATHS = {
    "/": "index.html",
    **{
        f"/page/{name}": name
        for name in (
            "call.js",
            "failures.js",
            "figures.js",
            "icon.svg",
            "page.css",
            "page.js",
            "plot.js",
            "sound.js",
        )
    },
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing inline and nothing from elsewhere: what a proxy or a fault injects does not run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The files of one version belong together: a browser asks each time, and gets a 304.
    "Cache-Control": "no-cache",
}


def add_page(app: web.Application) -> None:
    """Serve the page at `/` and its parts below `/page/`."""
    for path in _PATHS:
        app.router.add_get(path, _get_file)


async def _get_file(request: web.Request) -> web.FileResponse:
    name = _PATHS[request.path]
    headers = {**_HEADERS, "Content-Type": _TYPES[Path(name).suffix]}
    return web.FileResponse(FILES / name, headers=headers)
