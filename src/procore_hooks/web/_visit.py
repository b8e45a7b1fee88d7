"""One request to a page: who may make it, what it carries, and how it is answered."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from procore_hooks import Hook, HookRegistry, NotFound

from ._forms import Form, read_form, read_number
from ._moments import ago, exact, in_form
from ._scope import Addresses, Scope, with_query
from ._texts import LANGUAGES, Language, choose_language, say
from ._tokens import Note, form_token, is_browser_key, is_form_token, new_browser_key

if TYPE_CHECKING:
    from ._console import Console

__all__ = ["Authorize", "Refusal", "Visit", "admit", "checked_form"]

P = ParamSpec("P")
T = TypeVar("T")

Authorize = Callable[[Request, str | None, str | None], bool | Awaitable[bool]]

MAX_BODY: Final = 1024 * 1024
UNLESS_VERSION: Final = "x-unless-version"

_KEY_LASTS: Final = 365 * 24 * 3600
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_logger = logging.getLogger("procore_hooks")


class Refusal(Exception):
    """A request that is answered with a page that says no.

    Attributes:
        key: of the text that says what; ``<key>_why`` says why, unless `why` does.
    """

    def __init__(self, status: int, key: str, why: str | None = None) -> None:
        super().__init__(status, key)
        self.status = status
        self.key = key
        self.why = why


@attrs.define(kw_only=True)
class Visit:
    """A request by somebody who was let in, to a page of `scope`."""

    console: Console
    request: Request
    scope: Scope
    language: Language
    key: str
    form: Form = attrs.field(factory=dict)

    @classmethod
    def of(cls, console: Console, request: Request) -> Visit:
        """A visit before anybody was asked whether it may be."""
        chosen = request.query_params.get("lang") or request.cookies.get(cookie_name(request, "language"))
        key = request.cookies.get(cookie_name(request, "browser"))
        return cls(
            console=console,
            request=request,
            scope=Scope(),
            language=choose_language(chosen, request.headers.get("accept-language", "")),
            key=key if key is not None and is_browser_key(key) else new_browser_key(),
        )

    @property
    def registry(self) -> HookRegistry:
        """The registry that the page is about."""
        return self.console.registry

    @property
    def now(self) -> datetime:
        """The moment that the registry's clock shows."""
        return self.registry.clock.now()

    @property
    def at(self) -> Addresses:
        """The addresses of the pages of this scope."""
        root = str(self.request.scope.get("root_path", "")).rstrip("/")
        return Addresses(root, self.scope, self.console.static_version)

    @property
    def wants_json(self) -> bool:
        """Whether the page's script asks, and not the browser by itself."""
        return "application/json" in self.request.headers.get("accept", "")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns, run in a thread: the registry is synchronous, and may wait for its storage."""
        return await asyncio.to_thread(call, *args, **kwargs)

    def number(self, name: str) -> int:
        """An id in the address. Raises `NotFound` for what is none."""
        text = self.request.path_params[name]
        number = read_number(text)
        if number is None:
            raise NotFound(name.removesuffix("_id"), text)
        return number

    def hook(self) -> Hook:
        """The hook of the address. Raises `NotFound`, also for one of another scope. It reads the storage."""
        hook = self.registry.hooks.get(self.number("hook_id"))
        if not self.scope.owns(hook):
            raise NotFound("hook", hook.id)
        return hook

    def unchanged(self, version: str) -> bool:
        """Whether the page asks for news only, and has this version already."""
        return self.request.headers.get(UNLESS_VERSION) == version

    def say(self, key: str, **values: object) -> str:
        """A text in the visitor's language."""
        return say(self.language, key, **values)

    def page(self, template: str, *crumbs: tuple[str, str], status: int = 200, **values: Any) -> Response:
        """A page made from a template.

        Args:
            crumbs: where it is below the list of hooks: names and addresses, the page itself last.
        """
        now, language = self.now, self.language
        text = self.console.templates.get_template(template).render(
            t=self.say,
            at=self.at,
            crumbs=[(self.say("webhooks"), self.at.hooks), *crumbs],
            scope=self.scope,
            language=language,
            languages={one: with_query("", {**self.request.query_params, "lang": one}) for one in LANGUAGES},
            token=form_token(self.key),
            exact=exact,
            in_form=in_form,
            ago=lambda moment: ago(moment, now, language),
            now=now,
            done=self.request.query_params.get("done"),
            **values,
        )
        return self._dressed(HTMLResponse(text, status_code=status))

    def go(self, address: str, **query: str | int) -> Response:
        """On to a page, after a change."""
        return self._dressed(RedirectResponse(with_query(address, query), status_code=303))

    def leave_note(self, response: Response, note: Note, hook: Hook) -> Response:
        """Let the next page about `hook` know."""
        name = cookie_name(self.request, "note")
        response.set_cookie(name, note.seal(hook, self.now), max_age=300, **self._cookie("strict"))
        return response

    def found_note(self, hook: Hook) -> Note | None:
        """What the page before left for this one; `forget_note` takes it away."""
        return Note.open(self.request.cookies.get(cookie_name(self.request, "note")), hook, self.now)

    def forget_note(self, response: Response) -> Response:
        """Show what was left once only."""
        response.delete_cookie(cookie_name(self.request, "note"), **self._cookie("strict"))
        return response

    def _dressed(self, response: Response) -> Response:
        response.headers["cache-control"] = "no-store"
        response.headers["vary"] = "Accept-Language, Cookie"
        browser, language = cookie_name(self.request, "browser"), cookie_name(self.request, "language")
        if self.request.cookies.get(browser) != self.key:
            response.set_cookie(browser, self.key, max_age=_KEY_LASTS, **self._cookie("lax"))
        if self.request.query_params.get("lang") == self.language:
            response.set_cookie(language, self.language, max_age=_KEY_LASTS, **self._cookie("lax"))
        return response

    def _cookie(self, same_site: Any) -> dict[str, Any]:
        return {"path": "/", "secure": is_https(self.request), "httponly": True, "samesite": same_site}


def is_https(request: Request) -> bool:
    """Whether the browser came by https, as far as the server in front says so."""
    return request.url.scheme == "https"


def cookie_name(request: Request, purpose: str) -> str:
    """The name of a cookie; by https one that no other host, and no page without https, can set."""
    return f"{'__Host-' if is_https(request) else ''}procore_hooks_{purpose}"


async def admit(authorize: Authorize, request: Request, scope: Scope) -> None:
    """Ask the app whether this may be. Raises `Refusal`, or the `HTTPException` that the app raised.

    Only True lets anybody in. A plain function runs in a thread, since it will most often look into a database.
    """
    try:
        if inspect.iscoroutinefunction(authorize):
            answer: Any = authorize(request, scope.company_id, scope.project_id)
        else:
            answer = await asyncio.to_thread(authorize, request, scope.company_id, scope.project_id)
        if inspect.isawaitable(answer):
            answer = await answer
    except HTTPException:
        raise
    except PermissionError:
        raise Refusal(403, "forbidden") from None
    except Exception:
        _logger.exception("authorize raised, and nobody was let in")
        raise Refusal(503, "busy") from None
    if answer is not True:
        if not isinstance(answer, bool):
            _logger.error("authorize returned a %s, not True or False: nobody was let in", type(answer).__name__)
        raise Refusal(403, "forbidden")


async def checked_form(request: Request, key: str) -> Form:
    """The form that a request carries, once its token is found right. Raises `Refusal`."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        raise Refusal(403, "stale_form")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise Refusal(415, "bad_request", f"content-type: send {_FORM_TYPE}")
    form = read_form(await _body(request))
    if not is_form_token(key, form.get("token")):
        raise Refusal(403, "stale_form")
    return form


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise Refusal(413, "too_large")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal(413, "too_large")
    return bytes(body)
