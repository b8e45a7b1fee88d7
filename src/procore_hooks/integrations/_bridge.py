"""One request of a synchronous framework, answered by an ASGI app.

The app runs in an event loop of its own, in another thread, while this thread waits and is lent to whatever asks for it
by `asgiref.sync.sync_to_async`. So the framework's request, session and database connection are used where they belong.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

import attrs
from asgiref.sync import async_to_sync, sync_to_async

from procore_hooks import InvalidInput

__all__ = ["LONGEST_BODY", "Answer", "Visit", "answer_by", "asgi_scope", "asking"]

# More than this of a body is not even read. The page takes less.
LONGEST_BODY: Final = 2 * 1024 * 1024

_VISIT: Final = "procore_hooks.visit"

Scope = MutableMapping[str, Any]
ASGIApp = Callable[..., Any]


@attrs.define
class Visit:
    """A request of the framework's own to the page.

    Attributes:
        raised: what the app's `authorize` raised, if that is for the framework to answer.
    """

    request: Any
    raised: Exception | None = None


@attrs.define
class Answer:
    """What the app answered.

    Attributes:
        headers: in their order; a name may come more than once.
    """

    status: int = 500
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: bytes = b""


def asgi_scope(
    *,
    method: str,
    scheme: str,
    root_path: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    environ: Mapping[str, Any],
    visit: Visit,
) -> Scope:
    """The ASGI scope of a request.

    Args:
        root_path: where the app is mounted, with what the server itself is mounted at.
        path: below it, with a slash in front; decoded.
        query: the query string as it came.
        environ: of WSGI, for the addresses of both ends; what it does not say is left out.
        visit: for what `asking` returns.
    """
    port, client = str(environ.get("SERVER_PORT", "")), environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": root_path + path,
        "raw_path": None,
        "root_path": root_path,
        "query_string": query.encode("latin-1", "replace"),
        "headers": [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers
        ],
        "server": (str(environ.get("SERVER_NAME", "localhost")), int(port) if port.isdecimal() else None),
        "client": (client, 0) if client else None,
        _VISIT: visit,
    }


def asking(
    authorize: Callable[..., bool | Awaitable[bool]], answered_by_framework: tuple[type[Exception], ...]
) -> Callable[[Any, str | None, str | None], Awaitable[bool]]:
    """`authorize`, a function of the framework's request, as one of the ASGI app's.

    A plain function runs in the thread, and the context, that waits for the answer. What it raises of
    `answered_by_framework` is kept in the visit.

    Raises:
        InvalidInput: it cannot be called.
    """
    if not callable(authorize):
        raise InvalidInput("authorize", "it cannot be called: use a function that says who may open the page")
    is_async = inspect.iscoroutinefunction(authorize) or inspect.iscoroutinefunction(type(authorize).__call__)
    plain: Any = authorize
    ask: Callable[..., Awaitable[bool]] = plain if is_async else sync_to_async(plain)

    async def ask_for(request: Any, company_id: str | None, project_id: str | None) -> bool:
        visit: Visit = request.scope[_VISIT]
        try:
            return await ask(visit.request, company_id, project_id)
        except answered_by_framework as error:
            visit.raised = error
            raise PermissionError from None

    return ask_for


def answer_by(app: ASGIApp, scope: Scope, body: bytes) -> Answer:
    """What `app` answers. Raises what it raises."""
    answer = Answer()
    async_to_sync(_run)(app, scope, body, answer)
    return answer


async def _run(app: ASGIApp, scope: Scope, body: bytes, answer: Answer) -> None:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    answer.body = b"".join(parts)
