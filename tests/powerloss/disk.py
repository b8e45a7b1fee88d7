"""A disk that can lose its power: what was synced stays, and of the rest whatever chance leaves.

Per file, a sync makes all earlier writes durable. Of the writes since then a power loss leaves any subset, and of each
of them any of its 512-byte sectors: disks and kernels write in an order of their own. (Bytes next to a write are never
harmed, as SQLite's "powersafe overwrite" has it.) A new file's name is durable once the file or its folder was synced;
an unlink, once the folder was synced or a new file of that name was. Until then the name may be what it was before.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

__all__ = ["SECTOR", "Disk", "Link", "Operation", "Sync", "Truncate", "Unlink", "Write"]

SECTOR: Final = 512


@attrs.frozen
class Link:
    """A file was made."""

    name: str
    inode: int


@attrs.frozen
class Unlink:
    """A name was removed; durably, if the folder was synced."""

    name: str
    is_durable: bool


@attrs.frozen
class Write:
    """Bytes were written."""

    inode: int
    offset: int
    data: bytes


@attrs.frozen
class Truncate:
    """A file was cut to a size."""

    inode: int
    size: int


@attrs.frozen
class Sync:
    """All that was written to the file is durable; with the folder, what was made and unlinked in there is too."""

    inode: int
    with_folder: bool = False


Operation: TypeAlias = Link | Unlink | Write | Truncate | Sync


@attrs.define
class _Inode:
    durable: bytearray = attrs.field(factory=bytearray)
    pending: list[Write | Truncate] = attrs.field(factory=list)


class Disk:
    """Takes operations one after the other, and says at any moment what a power loss would leave."""

    def __init__(self) -> None:
        self._inodes: dict[int, _Inode] = {}
        # What each name has meant since the folder last became durable for it, oldest first; None is no file.
        self._meanings: dict[str, list[int | None]] = {}

    def take(self, operation: Operation) -> None:
        """Let it happen."""
        match operation:
            case Link(name, inode):
                self._inodes[inode] = _Inode()
                self._meanings.setdefault(name, [None]).append(inode)
            case Unlink(name, is_durable):
                self._meanings[name].append(None)
                if is_durable:
                    self._sync_folder()
            case Sync(inode, with_folder):
                self._sync(inode)
                if with_folder:
                    self._sync_folder()
            case Write(inode) | Truncate(inode):
                self._inodes[inode].pending.append(operation)

    def _sync(self, number: int) -> None:
        inode = self._inodes[number]
        for operation in inode.pending:
            _apply(inode.durable, operation)
        inode.pending.clear()
        for name, meanings in self._meanings.items():
            if number in meanings:
                self._meanings[name] = meanings[meanings.index(number) :]

    def _sync_folder(self) -> None:
        self._meanings = {name: meanings[-1:] for name, meanings in self._meanings.items()}

    def after_power_loss(self, dice: random.Random) -> Mapping[str, bytes]:
        """The files that are found when the power is back, by name."""
        # Often all or nothing of what was not synced, since the hardest cases are there.
        share = dice.choice((0.0, 0.0, 0.5, 0.9, 1.0, dice.random()))
        is_torn = dice.random() < 0.5
        left: dict[str, bytes] = {}
        for name, meanings in self._meanings.items():
            number = dice.choice(meanings)
            if number is not None:
                left[name] = self._contents(self._inodes[number], share, is_torn, dice)
        return left

    def _contents(self, inode: _Inode, share: float, is_torn: bool, dice: random.Random) -> bytes:
        contents = bytearray(inode.durable)
        for operation in inode.pending:
            if isinstance(operation, Write) and is_torn:
                for part in _sectors(operation):
                    if dice.random() < share:
                        _apply(contents, part)
            elif dice.random() < share:
                _apply(contents, operation)
        return bytes(contents)


def _apply(contents: bytearray, operation: Write | Truncate) -> None:
    if isinstance(operation, Truncate):
        del contents[operation.size :]
        end = operation.size
    else:
        end = operation.offset
    if len(contents) < end:
        contents.extend(bytes(end - len(contents)))
    if isinstance(operation, Write):
        contents[operation.offset : operation.offset + len(operation.data)] = operation.data


def _sectors(write: Write) -> list[Write]:
    first = write.offset - write.offset % SECTOR
    end = write.offset + len(write.data)
    bounds = [write.offset, *range(first + SECTOR, end, SECTOR), end]
    return [
        Write(write.inode, start, write.data[start - write.offset : stop - write.offset])
        for start, stop in itertools.pairwise(bounds)
    ]
