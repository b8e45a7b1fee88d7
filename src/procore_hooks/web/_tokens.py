"""Tokens that need no server state, so that every worker takes what any other gave out.

**Form tokens.** Each browser has a random key in a cookie that scripts cannot read. A form carries a token: a random
salt, and the HMAC of it under that key. Another site can make the browser send the cookie, and cannot make the token
(the signed double submit of the OWASP cheat sheet, with the cookie as the key). The salt changes with each answer, so
that compression tells nothing about it (BREACH).

**Notes.** What one page tells the next, once: that a secret is new and may be shown, and what the check of an endpoint
found. A note travels in a cookie, signed with the hook's own signing secret, and holds for five minutes.

**Versions.** A form that changes an endpoint carries a digest of what it was filled from.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from procore_hooks import EndpointReport, Hook

__all__ = ["Note", "digest", "endpoint_version", "form_token", "is_browser_key", "is_form_token", "new_browser_key"]

NOTE_HOLDS: Final = timedelta(minutes=5)

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)
# A cookie holds 4,096 bytes, and this twice, in UTF-8 and base64, at most 2,400.
_LONGEST_TEXT: Final = 300


def new_browser_key() -> str:
    """A random key of 256 bits."""
    return secrets.token_urlsafe(32)


def is_browser_key(text: str | None) -> bool:
    """Whether `text` looks like a key that was given out here."""
    return text is not None and _KEY.fullmatch(text) is not None


def form_token(key: str) -> str:
    """A token for a form that this browser is shown."""
    salt = secrets.token_urlsafe(12)
    return f"{salt}.{_signature(key, 'form', salt)}"


def is_form_token(key: str | None, token: str | None) -> bool:
    """Whether `token` was made for the browser with this key."""
    if key is None or not is_browser_key(key):
        return False
    parts = _TOKEN.fullmatch(token or "")
    return parts is not None and hmac.compare_digest(_signature(key, "form", parts[1]), parts[2])


def endpoint_version(hook: Hook) -> str:
    """What the endpoint's form was filled from; it changes when the URL or a header does, and shows neither."""
    headers = sorted((name, value.reveal()) for name, value in hook.destination_headers.items())
    return _signature(hook.signing_secret.reveal(), "endpoint", json.dumps([hook.destination_url, headers]))


def digest(*values: object) -> str:
    """A short name for the state that the values describe: it is another one when one of them is."""
    return hashlib.sha256(repr(values).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@attrs.frozen(kw_only=True)
class Note:
    """What a page tells the next one: `show_secret`, and what a check of the endpoint found."""

    show_secret: bool = False
    report: EndpointReport | None = None

    def seal(self, hook: Hook, now: datetime) -> str:
        """The note as the value of a cookie, for `hook` alone."""
        content: dict[str, Any] = {"until": (now + NOTE_HOLDS).timestamp(), "secret": self.show_secret}
        if self.report is not None:
            one = self.report
            content["report"] = [one.ok, one.stage, one.problem[:_LONGEST_TEXT], one.advice[:_LONGEST_TEXT]]
        text = base64.urlsafe_b64encode(json.dumps(content, ensure_ascii=False).encode()).decode("ascii")
        return f"{text}.{_signature(hook.signing_secret.reveal(), 'note', f'{hook.id}.{text}')}"

    @classmethod
    def open(cls, sealed: str | None, hook: Hook, now: datetime) -> Note | None:
        """The note, if `seal` made it for this hook with the secret that the hook has now, and it still holds."""
        text, _, signature = (sealed or "").rpartition(".")
        if not text.isascii() or not signature.isascii():
            return None
        if not hmac.compare_digest(_signature(hook.signing_secret.reveal(), "note", f"{hook.id}.{text}"), signature):
            return None
        content = json.loads(base64.urlsafe_b64decode(text))
        if now.timestamp() > content["until"]:
            return None
        ok, stage, problem, advice = content.get("report", (None, "answer", "", ""))
        report = None if ok is None else EndpointReport(ok=ok, stage=stage, problem=problem, advice=advice)
        return cls(show_secret=content["secret"], report=report)


def _signature(key: str, purpose: str, text: str) -> str:
    mac = hmac.digest(key.encode(), f"procore-hooks.{purpose}:{text}".encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(mac).decode("ascii").rstrip("=")
