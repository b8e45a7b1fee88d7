"""`install`: a dispatcher beside the application that a server serves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from procore_hooks import Dispatcher, InvalidInput

from .._serving import ServedDispatcher, is_gunicorn, is_gunicorn_worker
from ._configuration import get_dispatcher

__all__ = ["install"]

Application = Callable[..., Any]


def install(application: Application, *, dispatcher: Dispatcher | bool = True) -> Application:
    """Deliver while the application is served.

    To be called in ``wsgi.py`` or ``asgi.py``, which servers import, and commands, shells and tests do not. The
    dispatcher starts in every process that serves: at once, but in gunicorn's workers only and not in its master,
    and with ASGI when the server says that it starts. ``runserver`` starts it in the process that serves and not in
    the one that watches for changes. It stops when the process ends, and with ASGI when the server says so; what is
    not sent by then stays queued.

    Args:
        application: what `get_wsgi_application` or `get_asgi_application` returned.
        dispatcher: one to run instead of that of the settings. With False none runs here: another process has to
            deliver, such as ``manage.py procore_hooks_dispatch``.

    Returns:
        The application to serve instead.

    Raises:
        InvalidInput: a value is wrong.
        ImproperlyConfigured: the settings are.
    """
    if not callable(application):
        raise InvalidInput("application", "it cannot be called: use get_wsgi_application()")
    if not isinstance(dispatcher, bool | Dispatcher):
        raise InvalidInput("dispatcher", f"a {type(dispatcher).__name__} is none: use a Dispatcher, True or False")
    if dispatcher is False:
        return application
    served = ServedDispatcher(get_dispatcher() if dispatcher is True else dispatcher)
    if inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(type(application).__call__):
        return _asgi(application, served)
    if is_gunicorn_worker() or not is_gunicorn():
        served.start()
    return _wsgi(application, served)


def _wsgi(application: Application, served: ServedDispatcher) -> Application:
    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        served.start()
        answer: Iterable[bytes] = application(environ, start_response)
        return answer

    return serve


def _asgi(application: Application, served: ServedDispatcher) -> Application:
    async def serve(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            await _live(served, receive, send)
            return
        # For servers that say nothing of their start.
        if not served.runs_here:
            await asyncio.to_thread(served.start)
        await application(scope, receive, send)

    return serve


async def _live(served: ServedDispatcher, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Start and stop as the server says. Django itself takes no part in that."""
    while True:
        message = await receive()
        try:
            await asyncio.to_thread(served.start if message["type"] == "lifespan.startup" else served.stop)
        except Exception as error:
            await send({"type": f"{message['type']}.failed", "message": str(error)})
            return
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
