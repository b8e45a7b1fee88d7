"""A string that does not show itself."""

from __future__ import annotations

import hmac
from typing import NoReturn

__all__ = ["MASK", "Secret", "mask", "reveal"]

MASK = "*****"
# Procore shows the last five characters of an Authorization header. Of a short value five would be too much.
_SHOWN = 5
_SHORTEST_SHOWN = 10


def mask(text: str) -> str:
    """`text` as Procore shows a credential: stars and the last five characters, of a short one stars only."""
    return MASK + text[-_SHOWN:] if len(text) >= _SHORTEST_SHOWN else MASK


class Secret:
    """A string that prints masked wherever it is printed: `repr`, `str`, `format`, logs, `attrs.asdict`.

    `reveal()` gives the string. Comparison takes constant time. A Secret does not pickle, since a pickle
    would show it.
    """

    __slots__ = ("_text",)

    _text: str

    def __init__(self, text: str | Secret) -> None:
        plain = text.reveal() if isinstance(text, Secret) else text
        if not isinstance(plain, str):
            raise TypeError(f"a Secret wraps a str, not {type(plain).__name__}")
        object.__setattr__(self, "_text", str.__str__(plain))  # a subclass could say otherwise later

    def reveal(self) -> str:
        """The string itself."""
        return self._text

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash(("procore_hooks.Secret", self._text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not pickle: reveal() it where it is needed")


def reveal(text: str | Secret) -> str:
    """The plain string of `text`, wrapped or not."""
    return text.reveal() if isinstance(text, Secret) else text
