"""The words of the page, in English and in German."""

from __future__ import annotations

from typing import Final, Literal, get_args

from ._wording import WORDING

__all__ = ["LANGUAGES", "Language", "choose_language", "say"]

Language = Literal["en", "de"]

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)


def say(language: Language, key: str, **values: object) -> str:
    """The text of this key. Raises `KeyError` for a key or a value that there is not."""
    return WORDING[key][LANGUAGES.index(language)].format_map(values)


def choose_language(chosen: str | None, accepted: str) -> Language:
    """The language that was chosen by hand, or else the first of a browser's `Accept-Language` that there is."""
    for language in LANGUAGES:
        if language == chosen:
            return language
    wishes: list[tuple[float, Language]] = []
    for wish in accepted[:1000].lower().split(","):
        tag, _, rest = wish.strip().partition(";")
        for language in LANGUAGES:
            if tag.partition("-")[0].strip() == language:
                wishes.append((_weight(rest), language))
    best = max(wishes, key=lambda wish: wish[0], default=(0.0, LANGUAGES[0]))
    return best[1] if best[0] > 0 else LANGUAGES[0]


def _weight(parameters: str) -> float:
    """The weight of a wish, by RFC 9110, section 12.4.2; 1 where there is none."""
    name, _, value = parameters.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
