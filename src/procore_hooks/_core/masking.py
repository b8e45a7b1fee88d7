"""What of a hook must not be quoted: by the text of an error, or by an answer that the history keeps.

Transports other than ours may put what they were given into their errors, and some receivers send back what they got,
all of it. Both are searched for the hook's secrets, as they were sent, and stars put in their place. In another
writing, such as base64, a secret is not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from .models import Hook
from .secret import MASK

__all__ = ["SecretsOfHook"]

_PARTS: Final = re.compile(r"[\s,;:=\"']+")
# What says of a header that its value is a credential, whatever that looks like.
_CREDENTIAL: Final = re.compile(r"auth|key|pass|secret|sign|token", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z][a-z]{0,14}", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z.+*-]+", re.ASCII)
# An error is a line about the request and may lose a word too many. A kept answer is evidence and may not.
_SHORTEST_IN_ERROR: Final = 4
_SHORTEST_IN_ANSWER: Final = 8
_STARS: Final = MASK.encode("ascii")


class SecretsOfHook:
    """The secrets of a hook, found in what others wrote, and masked.

    They are the values of its headers and the credentials in them, its signing secrets, and the query of its URL. In
    an error the path of the URL is one more: it ends up in logs, and many a path holds a token.
    """

    __slots__ = ("_in_answers", "_in_errors")

    def __init__(self, hook: Hook, sent_url: str | None = None) -> None:
        """`sent_url` is the hook's URL as it was sent, where that is another spelling."""
        headers = {name: value.reveal() for name, value in hook.destination_headers.items()}
        signing = {hook.signing_secret.reveal(), *(one.secret.reveal() for one in hook.previous_secrets)}
        urls = {hook.destination_url, sent_url or hook.destination_url}
        queries = {url.partition("?")[2] for url in urls}
        paths = {"/" + url.partition("?")[0].partition("://")[2].partition("/")[2] for url in urls}
        named = [value for name, value in headers.items() if _CREDENTIAL.search(name)]
        credentials = {text for value in named for text in (value, *_split(value))}
        others = {text for value in (*headers.values(), *_parameters(queries)) for text in _split(value)}
        segments = {segment for path in paths for segment in path.split("/") if _may_be_secret(segment)}
        in_errors = {*headers.values(), *signing, *queries, *credentials, *others, *paths, *segments}
        self._in_errors = _longest_first(text for text in in_errors if len(text) >= _SHORTEST_IN_ERROR)
        in_answers = {*signing, *credentials, *filter(_may_be_secret, (*headers.values(), *queries, *others))}
        self._in_answers = [
            text.encode("utf-8", "surrogatepass")
            for text in _longest_first(spelling for text in in_answers for spelling in {text, json.dumps(text)[1:-1]})
            if len(text) >= _SHORTEST_IN_ANSWER
        ]

    def masked_in_error(self, text: str) -> str:
        """The text of an error without them."""
        for secret in self._in_errors:
            text = text.replace(secret, MASK)
        return text

    def masked_in_answer(self, body: bytes) -> bytes:
        """What came back, without those of at least eight characters."""
        for secret in self._in_answers:
            if secret in body:
                body = body.replace(secret, _STARS)
        return body

    def masked_in_headers(self, raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The same of the headers of an answer."""
        together = b"\n".join([text for header in raw for text in header])
        if not any(secret in together for secret in self._in_answers):
            return raw
        return [(self.masked_in_answer(name), self.masked_in_answer(value)) for name, value in raw]


def _split(value: str) -> list[str]:
    """A value's last parts: its first is most often a word such as "Bearer", and that of a parameter its name."""
    parts = [part for part in _PARTS.split(value) if part]
    return parts[1:] or parts


def _parameters(queries: Iterable[str]) -> list[str]:
    """The parameters of queries, as they were sent and decoded."""
    parameters = [parameter for query in queries for parameter in query.split("&")]
    return [*parameters, *map(unquote, parameters)]


def _may_be_secret(text: str) -> bool:
    """Whether it is not too short, nor a word or a media type, which an answer may hold of itself."""
    return len(text) >= _SHORTEST_IN_ANSWER and not (_WORD.fullmatch(text) or _MEDIA_TYPE.fullmatch(text))


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)
