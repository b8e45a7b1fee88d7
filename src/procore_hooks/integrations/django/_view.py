"""The settings page as a view."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse

from procore_hooks import HookRegistry

from ...web import console_app
from .._bridge import LONGEST_BODY, Answer, Visit, answer_by, asgi_scope, asking
from ._configuration import get_authorize, get_registry

__all__ = ["page"]


def page(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Answer a request to the page; `rest` is its path below where the page is mounted."""
    authorize = get_authorize()
    if authorize is None:
        raise Http404("PROCORE_HOOKS names no AUTHORIZE, so there is no page")
    visit = Visit(request)
    headers: Any = request.headers  # a cached property, which not every type checker sees through
    root = request.path[: len(request.path) - len(rest)].rstrip("/")
    scope = asgi_scope(
        method=request.method or "GET",
        scheme=request.scheme or "http",
        root_path=root,
        path=f"/{rest}",
        query=request.META.get("QUERY_STRING", ""),
        headers=headers.items(),
        environ=request.META,
        visit=visit,
    )
    answer = answer_by(_console(get_registry(), authorize), scope, _read_body(request))
    if visit.raised is not None:
        raise visit.raised
    return _response(answer)


# The page has tokens of its own in its forms. An attribute is all that Django's decorator sets.
page.csrf_exempt = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=4)
def _console(registry: HookRegistry, authorize: Callable[..., Any]) -> Any:
    return console_app(registry, authorize=asking(authorize, (PermissionDenied, Http404)))


def _read_body(request: HttpRequest) -> bytes:
    length = str(request.META.get("CONTENT_LENGTH") or "")
    if length.isdecimal() and int(length[:20]) > LONGEST_BODY:
        return b""  # refused by its length
    body: bytes = request.body
    return body


def _response(answer: Answer) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status)
    for name, value in answer.headers:
        if name.lower() == "set-cookie":
            cookies: SimpleCookie = SimpleCookie(value)
            response.cookies.update(cookies)
        else:
            response[name] = value
    return response
