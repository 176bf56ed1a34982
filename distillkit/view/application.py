"""Which address gives what. Whoever does not know the token learns nothing, not even that something is here.

Other programs and other users of this machine can reach a port on loopback, and so can any web page that is open in a
browser: by its address, or under a name of its own that it makes mean 127.0.0.1 (DNS rebinding). Hence the token in
the path, which is compared in constant time; the check of the Host header; and headers that let no other page embed
or read these. No address is a path of the disk: runs have keys.
"""

import secrets
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from distillkit.view.pages import Pages

HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Endpoint = Callable[[Request], Awaitable[Response]]


def view_application(pages: Pages, token: str) -> Starlette:
    """The application that serves `pages` below `/TOKEN/`; it answers GET alone."""

    def only_with_token(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            given = str(request.path_params["token"])
            if not secrets.compare_digest(given.encode(), token.encode()):
                return _nothing()
            return await endpoint(request)

        return checked

    async def index(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(pages.index))

    async def runs(request: Request) -> Response:
        return JSONResponse({"runs": await run_in_threadpool(pages.runs)})

    async def report(request: Request) -> Response:
        page = await run_in_threadpool(pages.report, str(request.path_params["key"]))
        return _nothing() if page is None else HTMLResponse(page)

    async def version(request: Request) -> Response:
        found = await run_in_threadpool(pages.version, str(request.path_params["key"]))
        return _nothing() if found is None else JSONResponse({"version": found})

    addresses = {
        "/{token}/": index,
        "/{token}/runs.json": runs,
        "/{token}/run/{key}/": report,
        "/{token}/run/{key}/version.json": version,
    }
    routes = [Route(path, only_with_token(endpoint)) for path, endpoint in addresses.items()]
    middleware = [
        Middleware(_Guard),
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
    ]
    application = Starlette(routes=routes, middleware=middleware, exception_handlers={404: _not_found})
    application.router.redirect_slashes = False
    return application


def _nothing() -> Response:
    return PlainTextResponse("Nothing is here. The address is the one that `distillkit view` printed.\n", 404)


async def _not_found(request: Request, error: Exception) -> Response:
    return _nothing()


class _Guard:
    """Answers GET alone, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))  # type: ignore[call-overload]
                message["headers"] = [*given, *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        if scope["method"] != "GET":
            refusal = PlainTextResponse("Only GET is answered here.\n", 405, {"Allow": "GET"})
            await refusal(scope, receive, send_with_headers)  # type: ignore[arg-type]
            return
        await self.app(scope, receive, send_with_headers)  # type: ignore[arg-type]
