"""JSON laid out for people, with every literal as it was sent."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["laid_out"]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_OPENS: Final = frozenset("[{")
_CLOSES: Final = frozenset("]}")
_INDENT: Final = "  "
# Numbers are left as text: one of more digits than Python converts is JSON too.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)


def laid_out(text: str) -> str:
    """`text` with a line for each member. Only white space between tokens changes.

    Numbers, escapes and repeated keys stay to the letter, where a parser would have its own view of them. What is not
    JSON comes back unchanged.
    """
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text
    lines: list[str] = []
    depth, current, before = 0, "", ""
    for token in _TOKEN.findall(text):
        if before in _OPENS and token not in _CLOSES:
            lines.append(current)
            depth += 1
            current = _INDENT * depth
        if token in _CLOSES and before not in _OPENS:
            lines.append(current)
            depth -= 1
            current = _INDENT * depth
        current += f"{token} " if token == ":" else token
        if token == ",":
            lines.append(current)
            current = _INDENT * depth
        before = token
    return "\n".join([*lines, current])
