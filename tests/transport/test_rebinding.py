"""Names that point elsewhere from one look-up to the next: no connection to an address that was not judged.

1,000 tries by default, 10,000 with PROCORE_HOOKS_FULL=1. What a try is follows from its number.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from procore_hooks._core.destinations import DestinationPolicy
from procore_hooks._dialling import NameNotFound, NameTimeout
from procore_hooks._transport import GuardedTransport
from procore_hooks.exceptions import InvalidDestination

from ..scene import FULL
from .conftest import answers_ok, post, receiver, send, transport_for

TRIES = 10_000 if FULL else 1_000
AT_ONCE = 20
GOOD = "127.0.0.1"
# Where the forbidden receiver listens, and more that no policy without an `allow` for it opens.
FORBIDDEN = ["127.0.0.2", "127.9.9.9", "::1"]
BAD = [*FORBIDDEN, "::ffff:127.0.0.2", "0.0.0.0", "::", "::ffff:0:0", "64:ff9b::127.0.0.2", "10.0.0.1", "fe80::1%lo"]
BAD += ["169.254.169.254", "::ffff:169.254.169.254", "2002:7f00:1::1", "localhost", "0x7f000001", "127.2", ""]
LOOK_UPS = 4  # of each name


class RecordingLoop(asyncio.SelectorEventLoop):
    """An event loop that notes to where sockets are connected."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: Counter[str] = Counter()

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.dialled[address[0]] += 1
        await super().sock_connect(sock, address)


@attrs.define
class Name:
    """A host name whose answer changes from one look-up to the next.

    Attributes:
        answers: one for each look-up; an exception is raised.
        manner: how they are given: plainly, slowly, awaited, or one by one as they are asked for.
    """

    answers: list[list[str] | Exception]
    manner: str
    asked: int = 0

    def next(self) -> list[str]:
        answer = self.answers[self.asked]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def endings(self) -> list[str]:
        """How an attempt after each look-up has to end."""
        return [
            "raised" if isinstance(answer, Exception) else "answered" if set(answer) == {GOOD} else "refused"
            for answer in self.answers
        ]


def make_name(dice: random.Random) -> Name:
    def answer() -> list[str] | Exception:
        some = dice.sample(BAD, dice.randint(1, 3))
        mixed = [GOOD, *some]
        dice.shuffle(mixed)
        fails = dice.choice([OSError("no"), UnicodeError("no"), socket.gaierror(socket.EAI_AGAIN, "again")])
        return dice.choice([[GOOD], [GOOD], [GOOD] * 3, some[:1], mixed, mixed, [*[GOOD] * 200, *some], [], fails])

    return Name([answer() for _ in range(LOOK_UPS)], dice.choice(["plain", "plain", "slow", "awaited", "one by one"]))


def resolver(names: dict[str, Name]) -> Callable[[str], Any]:
    def resolve(host: str) -> Any:
        name = names[host]
        if name.manner == "awaited":
            return later(name)
        if name.manner == "one by one":
            return one_by_one(name)
        if name.manner == "slow":
            time.sleep(0.002)  # in the look-up's own thread
        return name.next()

    async def later(name: Name) -> Iterable[str]:
        await asyncio.sleep(0)
        return name.next()

    def one_by_one(name: Name) -> Iterator[str]:
        yield from name.next()

    return resolve


async def attempt(transport: GuardedTransport, url: str) -> str:
    try:
        status, _ = await send(transport, post(url))
    except InvalidDestination:
        return "refused"
    except (NameNotFound, NameTimeout):
        return "raised"
    return "answered" if status == 200 else str(status)


def can_be_bound(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.bind((address, 0))
            return True
    except OSError:
        return False


@asynccontextmanager
async def forbidden_receiver(port: int) -> AsyncIterator[list[str]]:
    """Listens at this port of addresses that are not allowed; the addresses at which somebody came."""
    came: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("sockname")[0])
        writer.close()

    hosts = [address for address in FORBIDDEN if can_be_bound(address)]
    assert hosts
    async with await asyncio.start_server(serve, hosts, port):
        yield came


def test_no_connection_to_what_was_not_judged() -> None:
    """Whatever a name answers, and when, a connection is made only where every address of that look-up is allowed."""
    dice = random.Random(4)
    names = {f"h{number}.example": make_name(dice) for number in range(TRIES // LOOK_UPS)}
    policy = DestinationPolicy(("https", "http"), allow=(GOOD,), resolve=resolver(names))
    endings: dict[str, list[str]] = {}

    async def try_all(port: int, queue: Iterator[str], transport: GuardedTransport) -> None:
        for host in queue:
            endings[host] = [await attempt(transport, f"http://{host}:{port}/") for _ in range(LOOK_UPS)]

    async def main() -> tuple[int, list[str]]:
        async with (
            receiver(answers_ok, GOOD) as seen,
            forbidden_receiver(seen.port) as came,
            transport_for(policy, idle_seconds=0) as transport,
        ):
            queue = iter(names)
            await asyncio.gather(*(try_all(seen.port, queue, transport) for _ in range(AT_ONCE)))
            return seen.connections, came

    with asyncio.Runner(loop_factory=RecordingLoop) as runner:
        connections, came = runner.run(main())
        loop = runner.get_loop()
    assert isinstance(loop, RecordingLoop)
    assert endings == {host: name.endings for host, name in names.items()}
    counted = Counter(itertools.chain.from_iterable(endings.values()))
    print(f"{sum(counted.values())} tries: {dict(counted)}; dialled {dict(loop.dialled)}")
    assert came == []
    assert loop.dialled == {GOOD: counted["answered"]}
    assert connections == counted["answered"]
    assert min(counted["answered"], counted["refused"], counted["raised"]) > TRIES // 20
