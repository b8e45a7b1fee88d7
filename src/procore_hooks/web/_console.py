"""`console_app`: the routes of the settings page, its files, and what becomes of errors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from procore_hooks import (
    PROCORE,
    AsyncHookRegistry,
    Conflict,
    HookRegistry,
    InvalidInput,
    NotFound,
    ResourceCatalog,
    StorageError,
)

from . import _delivery_pages, _events_page, _hook_pages
from ._protection import Protection
from ._scope import Scope, with_query
from ._strip import Strips
from ._texts import say
from ._visit import Authorize, Refusal, Visit, admit, checked_form

__all__ = ["Authorize", "Console", "console_app"]

Handler = Callable[[Visit], Awaitable[Response]]

_SCOPES: Final = (
    "/companies/{company_id}",
    "/companies/{company_id}/projects/{project_id}",
    "/projects/{project_id}",
)
_HOOK: Final = "/hooks/{hook_id}"
_DELIVERY: Final = f"{_HOOK}/deliveries/{{delivery_id}}"
_SHOWN: Final[Mapping[str, Handler]] = {
    "": _hook_pages.hooks,
    "/new": _hook_pages.new_hook,
    _HOOK: _hook_pages.overview,
    f"{_HOOK}/last-day": _hook_pages.last_day,
    f"{_HOOK}/events": _events_page.events,
    f"{_HOOK}/deliveries": _delivery_pages.deliveries,
    _DELIVERY: _delivery_pages.delivery,
    f"{_DELIVERY}/payload": _delivery_pages.download,
}
_CHANGING: Final[Mapping[str, Handler]] = {
    "/new": _hook_pages.create_hook,
    _HOOK: _hook_pages.save_endpoint,
    f"{_HOOK}/events": _events_page.tick,
    f"{_HOOK}/pause": _hook_pages.pause,
    f"{_HOOK}/resume": _hook_pages.resume,
    f"{_HOOK}/secret": _hook_pages.rotate_secret,
    f"{_HOOK}/delete": _hook_pages.delete_hook,
    f"{_HOOK}/test": _delivery_pages.send_test,
    f"{_HOOK}/deliveries": _delivery_pages.recover,
    f"{_DELIVERY}/redeliver": _delivery_pages.redeliver,
}
_STATIC: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_PAGES_OF_STATUS: Final = {401: "forbidden", 403: "forbidden", 404: "not_found", 405: "method"}


@functools.cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("procore_hooks.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.tests["in_name"] = _is_in_name
    templates.globals["with_query"] = with_query
    return templates


@functools.cache
def _static_files() -> Mapping[str, bytes]:
    folder = files("procore_hooks.web").joinpath("static")
    return {name: folder.joinpath(name).read_bytes() for name in _STATIC}


class Console:
    """What the pages share."""

    def __init__(self, registry: HookRegistry, authorize: Authorize, catalogue: ResourceCatalog) -> None:
        self.registry = registry
        self.authorize = authorize
        self.catalogue = catalogue
        self.strips = Strips()
        self.templates = _templates()
        self._files = _static_files()
        self.static_version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]

    def routes(self) -> list[Route]:
        """Every address of the app."""
        routes = [Route("/static/{name}", self._file, methods=["GET"])]
        for pages, method in ((_SHOWN, "GET"), (_CHANGING, "POST")):
            for path, handler in pages.items():
                routes += [Route(scope + path, self._page(handler), methods=[method]) for scope in _SCOPES]
        return routes

    async def refused(self, request: Request, error: Exception) -> Response:
        """The page for an address or a method that there is not."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        refusal = Refusal(status, _PAGES_OF_STATUS.get(status, "bad_request"), "")
        headers = getattr(error, "headers", None)
        return _refused(Visit.of(self, request), refusal, headers)

    def _page(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visit = Visit.of(self, request)
            try:
                visit.scope = Scope.from_address(request.path_params)
                await admit(self.authorize, request, visit.scope)
                if request.method == "POST":
                    visit.form = await checked_form(request, visit.key)
                return await handler(visit)
            except HTTPException as error:
                return await self.refused(request, error)
            except Refusal as refusal:
                return _refused(visit, refusal)
            except NotFound:
                return _refused(visit, Refusal(404, "not_found"))
            except Conflict as error:
                return _refused(visit, Refusal(409, "conflict", str(error)))
            except InvalidInput as error:
                return _refused(visit, Refusal(400, "bad_request", str(error)))
            except StorageError:
                return _refused(visit, Refusal(503, "busy"), {"retry-after": "1"})

        return answer

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], headers={"content-type": _STATIC[name], "cache-control": _FOR_EVER})


def _is_in_name(name: str, sought: str) -> bool:
    return sought.casefold() in name.casefold()


def _refused(visit: Visit, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    why = refusal.why if refusal.why is not None else say(visit.language, f"{refusal.key}_why")
    response: Response
    if visit.wants_json:
        response = JSONResponse({"error": why or say(visit.language, refusal.key)}, status_code=refusal.status)
    else:
        crumb = (say(visit.language, refusal.key), "")
        response = visit.page("refusal.html", crumb, status=refusal.status, key=refusal.key, why=why)
    response.headers.update(headers or {})
    return response


def console_app(
    registry: HookRegistry | AsyncHookRegistry,
    *,
    authorize: Authorize,
    catalogue: ResourceCatalog | None = None,
) -> Starlette:
    """The settings page as an ASGI app, to mount wherever an app likes.

    It shows the hooks of a company or project to whoever may administer them: `console_path` has the addresses. It
    keeps nothing in the process, so that any number of workers may serve it.

    Args:
        registry: whose hooks are shown.
        authorize: called before every page and every change with the request, a `starlette.requests.Request`, and the
            ids of company and project as text, None for what is not named. A coroutine function is awaited, a plain
            one runs in a thread. Nobody is let in but by True. It may raise: `PermissionError` is a refusal, a
            `starlette.exceptions.HTTPException` is answered as it says (a 303 with a ``Location`` leads to a login),
            and anything else is logged, and answered with 503.
        catalogue: the resources of the grid; if left out, those of the registry, or else Procore's.

    Raises:
        InvalidInput: a value is wrong.
    """
    if not isinstance(registry, HookRegistry | AsyncHookRegistry):
        raise InvalidInput("registry", f"a {type(registry).__name__} is no registry: use HookRegistry(...)")
    if not callable(authorize):
        raise InvalidInput("authorize", "it cannot be called: use a function that says who may open the page")
    own = registry.sync_registry if isinstance(registry, AsyncHookRegistry) else registry
    shown = own.resources if catalogue is None else catalogue
    if shown is not None and not isinstance(shown, ResourceCatalog):
        raise InvalidInput("catalogue", f"a {type(shown).__name__} is no catalogue: use ResourceCatalog([...])")
    console = Console(own, authorize, PROCORE if shown is None else shown)
    return Starlette(
        routes=console.routes(),
        middleware=[Middleware(Protection), Middleware(GZipMiddleware, minimum_size=500, compresslevel=6)],
        exception_handlers={HTTPException: console.refused},
    )
