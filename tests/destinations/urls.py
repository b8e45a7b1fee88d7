"""Hostile URLs without end, from a seed, and what other readers of URLs make of those that a policy accepts.

    python -m tests.destinations.urls --seed 1 --count 100000

prints how many were accepted and, should there be any, those that are read in more than one way; it then ends with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import idna

from procore_hooks import DestinationPolicy, InvalidDestination

from . import whatwg
from .whatwg import PORTS, Reading

# For each part of a URL, what is usual and what is odd; some of what is odd may well pass.
PIECES = json.loads((Path(__file__).parents[1] / "data/url_pieces.json").read_text(encoding="utf-8"))
BOTH = DestinationPolicy(schemes=("https", "http"))


def generate(seed: int, count: int) -> Iterator[str]:
    """`count` URLs, most of them hostile in some place or other, always the same for a seed."""
    dice = random.Random(seed)
    for _ in range(count):
        maker = _Maker(dice, oddity=dice.choice((0.0, 0.05, 0.2)))
        url = maker.url()
        yield maker.spoilt(url) if dice.random() < 0.25 else url


class _Maker:
    """Makes a URL out of pieces of which so many are odd."""

    def __init__(self, dice: random.Random, oddity: float) -> None:
        self._dice = dice
        self._oddity = oddity

    def url(self) -> str:
        names = ("schemes", "separators", "users")
        start = "".join(map(self._piece, names))
        return f"{start}{self._host()}{self._port()}{self._piece('paths')}{self._piece('queries')}"

    def spoilt(self, url: str) -> str:
        """`url` with something put in, left out or said twice, at any place."""
        place, kind = self._dice.randrange(len(url) + 1), self._dice.random()
        if kind < 0.6:
            return url[:place] + self._dice.choice(PIECES["odd_characters"]) + url[place:]
        if kind < 0.8:
            return url[:place] + url[place + 1 :]
        return url[:place] + url[place : place + 3] * 2 + url[place + 3 :]

    def _piece(self, name: str) -> str:
        kind = "odd" if self._dice.random() < self._oddity else "usual"
        return str(self._dice.choice(PIECES[name][kind]))

    def _port(self) -> str:
        if self._dice.random() < 0.7:
            return ""
        return f":{self._dice.randrange(1, 65536) if self._dice.random() < 0.5 else self._piece('ports')}"

    def _host(self) -> str:
        kind = self._dice.random()
        if kind < 0.1:
            return self._piece("ipv4")
        if kind < 0.2:
            return f"[{self._piece('ipv6')}]"
        if kind < 0.25:
            return ".".join(
                self._dice.choices(["8", "010", "0x8", "008", "256", "0", "8x"], k=self._dice.randint(1, 5))
            )
        labels = [self._label() + self._piece("dots") for _ in range(self._dice.randrange(3))]
        host = "".join(labels) + self._piece("ends")
        return host.upper() if self._dice.random() < 0.1 else host

    def _label(self) -> str:
        kind = self._dice.random()
        if kind < 0.3:
            return self._piece("labels")
        if kind < 0.6:
            return "".join(self._dice.choices("abcxyz019-_", k=self._dice.randint(1, 8)))
        if kind < 0.8:
            return self._piece("foreign_labels")
        if kind < 0.9:
            return "xn--" + "".join(self._dice.choices("abkv019-", k=self._dice.randrange(8)))
        block = self._dice.choice([0x80, 0x370, 0x530, 0x900, 0x1E00, 0x3040, 0xA000])
        return "".join(chr(block + self._dice.randrange(0x100)) for _ in range(2))


def disagreement(url: str) -> tuple[bool, str]:
    """Whether `url` is accepted, and which reader then sees another destination, in words; "" if none does."""
    try:
        destination = BOTH.parse(url)
    except InvalidDestination:
        return False, ""
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    taken = (destination.scheme, _plain(host), destination.port)
    for text in dict.fromkeys((url, destination.url)):
        found = {name: _try(read, text) for name, read in READERS.items()}
        if any(reading != taken for reading in found.values()):
            return True, f"{text!a}, of {url!a}, is {taken} here, and elsewhere {found}"
    return True, ""


def _try(read: Callable[[str], object], url: str) -> object:
    try:
        return read(url)
    except Exception as error:
        return type(error).__name__


def _by_httpx(url: str) -> Reading:
    seen = httpx.URL(url)
    host = seen.raw_host.decode("ascii")
    return seen.scheme, _plain(f"[{host}]" if ":" in host else host), seen.port or PORTS[seen.scheme]


def _by_urllib(url: str) -> Reading:
    seen = urlsplit(url)
    host = seen.hostname or ""
    host = host if host.isascii() else idna.encode(host).decode("ascii")
    port = PORTS[seen.scheme] if seen.port is None else seen.port
    return seen.scheme, _plain(f"[{host}]" if ":" in host else host), port


def _by_whatwg(url: str) -> Reading | None:
    return whatwg.read(url)


READERS: dict[str, Callable[[str], object]] = {"httpx": _by_httpx, "urllib": _by_urllib, "whatwg": _by_whatwg}


def _plain(host: str) -> str:
    """An IPv6 address as the standard writes it; an IPv4 address without the full stop that may follow it."""
    if host.startswith("["):
        return whatwg.read_host(host)
    bare = host.removesuffix(".")
    return bare if bare.replace(".", "").isdecimal() else host


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=100_000)
    arguments = options.parse_args()
    accepted, problems = 0, []
    for url in generate(arguments.seed, arguments.count):
        passed, problem = disagreement(url)
        accepted += passed
        if problem:
            problems.append(problem)
    print(f"seed {arguments.seed}: {accepted} of {arguments.count} URLs accepted, {len(problems)} read in two ways")
    print(*problems[:20], sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
