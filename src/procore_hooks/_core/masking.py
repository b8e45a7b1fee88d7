"""What of a hook must not be quoted: by the text of an error, or by an answer that the history keeps.

Transports other than ours may put what they were given into their errors, and some receivers send back what they got,
all of it. Both are searched for the hook's secrets, as they were sent and as JSON, URLs and HTML write them, and stars
put in their place. In a writing that changes letters and digits, such as base64 or gzip, a secret is not found.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final
from urllib.parse import quote, unquote

from .frozen import FrozenDict
from .headers import kept_response_headers
from .models import Hook
from .secret import MASK

__all__ = ["SecretsOfHook"]

_PARTS: Final = re.compile(r"[\s,;:=\"']+")
# What stands before a credential and is none: the scheme of a header, the name of a parameter within it.
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,19}(?=\s*=\s*[^\s=])|\A[A-Za-z-]{1,20}(?=\s)", re.ASCII)
_BASIC: Final = re.compile(r"basic\s+([A-Za-z0-9+/]+)=*", re.IGNORECASE)
# What says of a header or a parameter that its value is a credential, whatever that looks like.
_CREDENTIAL: Final = re.compile(r"auth|key|pass|secret|sign|token", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z][a-z]{0,14}", re.ASCII)
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z.+*-]+", re.ASCII)
# An error is a line about the request and may lose a word too many. A kept answer is evidence and may not.
_SHORTEST_IN_ERROR: Final = 4
_SHORTEST_IN_ANSWER: Final = 8
# Of each value, and of all together: a customer who writes a thousand would make every answer slow to search.
_MOST_PARTS: Final = 8
_MOST_SOUGHT: Final = 200
_MOST_TRIED: Final = 64
# Of each hook: headers of an answer, and bytes of one.
_MOST_REMEMBERED: Final = 20
_LONGEST_REMEMBERED: Final = 200
_STARS: Final = MASK.encode("ascii")
_NONE_KEPT: Final = FrozenDict[str, str]()
# What is written the same in every spelling.
_PLAIN: Final = re.compile(r"[A-Za-z0-9]+", re.ASCII)
# JSON's \u002B for a plus.
_MOST_PER_BYTE: Final = 6
# What JSON is written without where it may end up in HTML: by Go and Ruby, by .NET, by Gson.
_MARKUP: Final = (re.compile(r"[&<>]"), re.compile(r"[&<>'`+]"), re.compile(r"[&<>'=]"))
_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")


class SecretsOfHook:
    """The secrets of a hook, found in what others wrote, and masked.

    They are the values of its headers and the credentials in them, its signing secrets, and the query of its URL. In
    an error the path of the URL is one more: it ends up in logs, and many a path holds a token.
    """

    __slots__ = ("_in_answers", "_in_errors", "_last_headers", "_last_kept")

    def __init__(self, hook: Hook, sent_url: str | None = None) -> None:
        """`sent_url` is the hook's URL as it was sent, where that is another spelling."""
        headers = [(name, value.reveal()) for name, value in hook.destination_headers.items()]
        signing = [hook.signing_secret.reveal(), *(one.secret.reveal() for one in hook.previous_secrets)]
        urls = {hook.destination_url, sent_url or hook.destination_url}
        queries = [url.partition("?")[2] for url in urls]
        paths = ["/" + url.partition("?")[0].partition("://")[2].partition("/")[2] for url in urls]
        named = [*headers, *(parameter for query in queries for parameter in _parameters(query))]
        # Receivers have the signing secret, and may well write it without the prefix.
        credentials = {part for secret in signing for part in (secret, *_split(secret.partition("_")[2]))}
        others = {*(value for _, value in headers), *queries}
        for name, value in named:
            (credentials if _CREDENTIAL.search(name) else others).update((value, *_split(value)))
        segments = {spelling for path in paths for one in path.split("/") for spelling in (one, unquote(one))}
        in_errors = {*credentials, *others, *paths, *filter(_may_be_secret, segments)}
        self._in_errors = _Sought(in_errors, _SHORTEST_IN_ERROR)
        self._last_headers: Sequence[tuple[bytes, bytes]] | None = None
        self._last_kept = _NONE_KEPT
        self._in_answers = _Sought({*credentials, *filter(_may_be_secret, others)}, _SHORTEST_IN_ANSWER)

    def masked_in_error(self, text: str) -> str:
        """The text of an error without them."""
        return self._in_errors.masked(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def masked_in_words(self, text: str) -> str:
        """What quotes an answer, without those of at least eight characters."""
        return self._in_answers.masked(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def looked_at(self, most: int) -> int:
        """How much of an answer is looked at to tell what its first `most` bytes are to be."""
        return most + self._in_answers.longest

    def masked_in_answer(self, body: bytes, most: int, *, is_cut: bool) -> bytes:
        """The first `most` bytes of what came back, without those of at least eight characters.

        `is_cut` says that more was to come, so that the end may be in the middle of one: eight bytes or more of its
        beginning are masked there too.
        """
        looked_at = body[: self.looked_at(most)]
        if is_cut or len(looked_at) < len(body):
            looked_at = self._in_answers.without_begun(looked_at)
        return self._in_answers.masked(looked_at)[:most]

    def masked_in_headers(self, raw: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """The same of the headers of an answer."""
        if not self._in_answers.may_be_in(b"\n".join([text for header in raw for text in header])):
            return raw
        masked = self._in_answers.masked
        return [(masked(name), masked(value)) for name, value in raw]

    def kept_headers(self, raw: Sequence[tuple[bytes, bytes]]) -> FrozenDict[str, str]:
        """The headers of an answer as the history keeps them, without those.

        Within a second a receiver's answers mostly have the same ones, so the last are remembered.
        """
        last = self._last_headers
        if last is not None and (last is raw or last == raw):
            return self._last_kept
        kept = kept_response_headers(self.masked_in_headers(raw))
        is_small = len(raw) <= _MOST_REMEMBERED and all(
            len(name) + len(value) <= _LONGEST_REMEMBERED for name, value in raw
        )
        self._last_headers, self._last_kept = (raw, kept) if is_small else (None, _NONE_KEPT)
        return kept


class _Sought:
    """Texts of at least `shortest` characters, in all their spellings, to be found in bytes and masked.

    Attributes:
        longest: how many bytes any spelling has at the most.
    """

    def __init__(self, texts: Iterable[str], shortest: int) -> None:
        # The longest first: a part of it that is masked would keep the whole from being found.
        chosen = sorted((text for text in texts if len(text) >= shortest), key=len, reverse=True)
        # Tuples of texts, here and below: thousands of hooks have them, and the garbage collector soon lets those be.
        self._texts = tuple(chosen[:_MOST_SOUGHT])
        self.longest = _MOST_PER_BYTE * (len(self._texts[0].encode("utf-8", "surrogatepass")) if self._texts else 0)

    # Made when they are first needed: most hooks never have an error, nor an answer that holds a secret.

    @cached_property
    def _spellings(self) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(spelling for text in self._texts for spelling in _spelled(text)))

    @cached_property
    def _cores(self) -> tuple[bytes, ...]:
        """A piece of each text that all its spellings share. Most answers hold none, and that is soon found out."""
        cores: list[bytes] = []
        for core in sorted({max(_PLAIN.findall(text), key=len, default="") for text in self._texts}, key=len):
            plain = core.encode("ascii")
            if not any(other in plain for other in cores):
                cores.append(plain)
        return tuple(cores)

    def may_be_in(self, content: bytes) -> bool:
        """False if none of them is in `content`. Quick."""
        for core in self._cores:  # noqa: SIM110 - a generator would take twice as long
            if core in content:
                return True
        return False

    def masked(self, content: bytes) -> bytes:
        """`content` with stars in the place of each."""
        if self.may_be_in(content):
            for spelling in self._spellings:
                content = content.replace(spelling, _STARS)
        return content

    def without_begun(self, content: bytes) -> bytes:
        """`content` with stars in the place of one that its end has cut, if eight bytes or more of it are there."""
        begun = min((_begins(content, spelling) for spelling in self._spellings), default=len(content))
        return content if begun == len(content) else content[:begun] + _STARS


def _begins(content: bytes, sought: bytes) -> int:
    """Where `content` ends in a beginning of `sought` of at least eight bytes; its length if it does not."""
    begun = sought[:_SHORTEST_IN_ANSWER]
    start = first = content.find(begun, max(0, len(content) - len(sought) + 1))
    for _ in range(_MOST_TRIED):
        if start < 0:
            return len(content)
        if sought.startswith(content[start:]):
            return start
        start = content.find(begun, start + 1)
    return first  # a text that repeats itself over and over: rather too much than too slowly


def _spelled(text: str) -> list[bytes]:
    """`text` as it is, in JSON as this and other languages write it, in a URL, and in HTML."""
    if text.isascii() and text.isalnum():
        return [text.encode("ascii")]
    in_json = json.dumps(text)[1:-1]
    in_url = quote(text, safe="", errors="surrogatepass")
    spellings = (
        text,
        in_json,
        in_json.replace("/", "\\/"),
        *(markup.sub(lambda found: f"\\u{ord(found[0]):04X}", in_json) for markup in _MARKUP),
        *(markup.sub(lambda found: f"\\u{ord(found[0]):04x}", in_json) for markup in _MARKUP),
        in_url,
        _PERCENT.sub(lambda found: found[0].lower(), in_url),
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    )
    return [spelling.encode("utf-8", "surrogatepass") for spelling in dict.fromkeys(spellings)]


def _split(value: str) -> list[str]:
    """What may be credentials in a header's value: its parts without its scheme and the names in it.

    And the long runs of letters and digits in those, which every writing has, and one writing within another. Of Basic
    authentication it is the password too, and what it was encoded with.
    """
    parts = _longest(filter(None, _PARTS.split(_LABEL.sub(" ", value))))
    parts += _longest(run for part in parts for run in _PLAIN.findall(part) if _may_be_secret(run))
    basic = _BASIC.fullmatch(value)
    if basic is not None and len(basic[1]) % 4 != 1:
        decoded = base64.b64decode(basic[1] + "=" * (-len(basic[1]) % 4)).decode("utf-8", "replace")
        parts += decoded, decoded.partition(":")[2]
    return parts


def _parameters(query: str) -> list[tuple[str, str]]:
    """Names and values of a query's longest parameters, as sent and decoded. One without a name is a value."""
    found: list[tuple[str, str]] = []
    for parameter in _longest(query.split("&")):
        name, mark, value = parameter.partition("=")
        name, value = (name, value) if mark else ("", name)
        found += (name, value), (name, unquote(value))
    return found


def _may_be_secret(text: str) -> bool:
    """Whether it is not too short, nor a word or a media type, which an answer may hold of itself."""
    return len(text) >= _SHORTEST_IN_ANSWER and not (_WORD.fullmatch(text) or _MEDIA_TYPE.fullmatch(text))


def _longest(parts: Iterable[str]) -> list[str]:
    return sorted(parts, key=len, reverse=True)[:_MOST_PARTS]
