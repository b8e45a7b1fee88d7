"""The settings page and a dispatcher in a Flask app. It needs the extra ``flask``.

::

    from procore_hooks.integrations.flask import install

    install(app, registry, authorize=may_administer)
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from procore_hooks import AsyncHookRegistry, Dispatcher, HookRegistry

from ._extras import without_extra
from ._serving import ServedDispatcher, checked_path, chosen_dispatcher, is_gunicorn_worker

try:
    from flask import Flask, Request, Response, request, request_started
    from werkzeug.exceptions import HTTPException

    from ..web import console_app
    from ._bridge import LONGEST_BODY, Visit, answer_by, asgi_scope, asking
except ImportError as error:
    raise without_extra("flask", error) from error

__all__ = ["Authorize", "install"]

Authorize = Callable[[Request, str | None, str | None], bool | Awaitable[bool]]


def install(
    app: Flask,
    registry: HookRegistry | AsyncHookRegistry,
    *,
    authorize: Authorize | None,
    path: str = "/webhooks",
    dispatcher: Dispatcher | bool = True,
) -> None:
    """Mount the settings page, and deliver while the app is served.

    The page is a view of the app: what the app does before and after each request, it does here too.

    The dispatcher starts in every process that serves the app: in a worker of gunicorn or of Flask's reloader at once,
    in any other with its first request. It does not start in gunicorn's master, in the reloader's parent, in shells,
    commands and job runners, nor where ``app.testing`` is set. It stops when the process ends; what is not sent by
    then stays queued.

    Args:
        app: the Flask app.
        registry: whose hooks are shown, and whose deliveries are made.
        authorize: who may open the page: a function of Flask's request and the ids of company and project as text,
            None for what is not named. It is called before every page and every change, where the request is served,
            so `flask.session` and the like are at hand. Nobody is let in but by True. It may `abort`, also with a
            redirect to a login. A coroutine function will do. None mounts no page.
        path: where the page is mounted.
        dispatcher: one with settings of its own. True makes one with the defaults; with False, none runs here, and
            another process has to deliver.

    Raises:
        InvalidInput: a value is wrong.
    """
    chosen = chosen_dispatcher(registry, dispatcher)
    if authorize is not None:
        _mount(app, registry, authorize, checked_path(path))
    if chosen is not None:
        _run_with(app, ServedDispatcher(chosen))


def _run_with(app: Flask, served: ServedDispatcher) -> None:
    def first_request(sender: Flask, **extra: Any) -> None:
        if not sender.testing:
            served.start()

    request_started.connect(first_request, app, weak=False)
    # The reloader says so to the process that it starts to serve; its own has read the app too.
    if not app.testing and (is_gunicorn_worker() or os.environ.get("WERKZEUG_RUN_MAIN") == "true"):
        served.start()


def _mount(app: Flask, registry: HookRegistry | AsyncHookRegistry, authorize: Authorize, path: str) -> None:
    console = console_app(registry, authorize=asking(authorize, (HTTPException,)))

    def page(rest: str = "") -> Response:
        visit = Visit(request._get_current_object())  # type: ignore[attr-defined]
        scope = asgi_scope(
            method=request.method,
            scheme=request.scheme,
            root_path=request.root_path.rstrip("/") + path,
            path=f"/{rest}",
            query=request.query_string.decode("latin-1"),
            headers=request.headers.items(),
            environ=request.environ,
            visit=visit,
        )
        answer = answer_by(console, scope, _read_body(request))
        if visit.raised is not None:
            raise visit.raised
        return Response(answer.body, answer.status, answer.headers)

    endpoint = f"procore_hooks{path.replace('/', '_')}"
    for rule in (f"{path}/", f"{path}/<path:rest>"):
        app.add_url_rule(rule, endpoint, page, methods=["GET", "POST"], provide_automatic_options=False)


def _read_body(flask_request: Request) -> bytes:
    if (flask_request.content_length or 0) > LONGEST_BODY:
        return b""  # refused by its length
    body = bytearray()
    while len(body) <= LONGEST_BODY and (data := flask_request.stream.read(LONGEST_BODY + 1 - len(body))):
        body += data
    return bytes(body)
