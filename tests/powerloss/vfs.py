"""A VFS for SQLite that writes down what reaches the disk, and what SQLite asked to be made durable.

SQLite talks to the operating system through a table of functions. This module copies the default table, puts a few
functions of its own in front, and registers the copy as the new default, in the very library that Python's `sqlite3`
uses. So it must be installed in a process of its own: `recorder` is one. The shared memory of a WAL is not recorded:
no power loss leaves anything of it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import Any, Final

from .disk import Link, Operation, Sync, Truncate, Unlink, Write

try:
    import _sqlite3
except ImportError:  # an interpreter without SQLite
    _sqlite3 = None

__all__ = ["RecordingVFS", "obstacle"]

_OK: Final = 0
_JOURNALS: Final = ("-journal", "-wal")


class _Methods(Structure):
    """sqlite3_io_methods, as far as it is needed; the rest is copied as it is."""

    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),  # up to xUnfetch, the last of version 3
    ]


class _File(Structure):
    """sqlite3_file."""

    _fields_ = [("methods", POINTER(_Methods))]


class _VFS(Structure):
    """sqlite3_vfs."""

    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("others", c_void_p * 14),  # up to xNextSystemCall, the last of version 3
    ]


# Names are pointers here, not strings: SQLite finds more behind the name that it gives to xOpen.
_Open = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_File), c_int, POINTER(c_int))
_Delete = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Write = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = POINTER(_VFS)
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    library.sqlite3_vfs_register.argtypes = [POINTER(_VFS), c_int]
    return library


def obstacle() -> str | None:
    """Why the VFS cannot be installed under this Python; None where it can."""
    if os.name != "posix":
        return "the recording VFS wraps SQLite's VFS for Unix"
    try:
        library = _library()
    except (AttributeError, OSError) as error:
        return f"the SQLite inside Python's sqlite3 module cannot be reached by ctypes: {error}"
    if library.sqlite3_vfs_find(None).contents.name != b"unix":
        return "SQLite's default VFS is not the one for Unix"
    return None


class RecordingVFS:
    """Records the files under one folder into `operations`, in the order in which they happen.

    Put marks of your own between them: what comes before a mark had happened by then.
    """

    def __init__(self, folder: str) -> None:
        self.operations: list[Operation | Any] = []
        self._folder = os.fsencode(os.path.join(folder, ""))
        self._inodes = 0
        self._links: dict[bytes, int] = {}  # by name
        self._opened: dict[int, int] = {}  # inodes by the address of the sqlite3_file
        # SQLite syncs the folder along with a new journal or WAL, when it syncs that for the first time.
        self._folder_owed: set[int] = set()
        self._patched: dict[int, _Methods] = {}  # by the address of the original
        self._kept: list[object] = []  # what C code points to

    def install(self) -> None:
        """Make it the default of this process, for good."""
        library = _library()
        real = library.sqlite3_vfs_find(None).contents
        ours = _VFS.from_buffer_copy(real)
        ours.name = b"recording"
        ours.next = None
        self._real_open = ctypes.cast(real.open, _Open)
        self._real_delete = ctypes.cast(real.delete, _Delete)
        ours.open = self._keep(_Open(self._open))
        ours.delete = self._keep(_Delete(self._delete))
        self._kept.append(ours)
        assert library.sqlite3_vfs_register(ctypes.byref(ours), 1) == _OK

    def _keep(self, function: Any) -> c_void_p:
        self._kept.append(function)
        return ctypes.cast(function, c_void_p)

    def _open(self, vfs: int, name: int | None, file: Any, flags: int, flags_out: Any) -> int:
        result: int = self._real_open(vfs, name, file, flags, flags_out)
        path = b"" if name is None else ctypes.string_at(name)
        if result == _OK and path.startswith(self._folder):
            base = path.removeprefix(self._folder).decode()
            if path not in self._links:
                self._inodes += 1
                self._links[path] = self._inodes
                self.operations.append(Link(base, self._inodes))
                if base.endswith(_JOURNALS):
                    self._folder_owed.add(self._inodes)
            self._opened[ctypes.addressof(file.contents)] = self._links[path]
            # The file is SQLite's own in all but five functions, so its locks and shared memory work as ever.
            file.contents.methods = ctypes.pointer(self._methods_instead_of(file.contents.methods))
        return result

    def _delete(self, vfs: int, name: int, sync_folder: int) -> int:
        result: int = self._real_delete(vfs, name, sync_folder)
        path = ctypes.string_at(name)
        if result == _OK and self._links.pop(path, None) is not None:
            base = path.removeprefix(self._folder).decode()
            self.operations.append(Unlink(base, is_durable=bool(sync_folder)))
        return result

    def _methods_instead_of(self, original: Any) -> _Methods:
        address = ctypes.addressof(original.contents)
        if address not in self._patched:
            self._patched[address] = self._patch(original.contents)
        return self._patched[address]

    def _patch(self, real: _Methods) -> _Methods:
        ours = _Methods.from_buffer_copy(real)
        real_write = ctypes.cast(real.write, _Write)
        real_truncate = ctypes.cast(real.truncate, _Truncate)
        real_sync = ctypes.cast(real.sync, _Sync)

        def write(file: int, data: int, amount: int, offset: int) -> int:
            operation = Write(self._opened[file], offset, ctypes.string_at(data, amount))
            return self._noted(operation, lambda: real_write(file, data, amount, offset))

        def truncate(file: int, size: int) -> int:
            return self._noted(Truncate(self._opened[file], size), lambda: real_truncate(file, size))

        def sync(file: int, flags: int) -> int:
            inode = self._opened[file]
            operation = Sync(inode, with_folder=inode in self._folder_owed)
            self._folder_owed.discard(inode)
            return self._noted(operation, lambda: real_sync(file, flags))

        ours.write = self._keep(_Write(write))
        ours.truncate = self._keep(_Truncate(truncate))
        ours.sync = self._keep(_Sync(sync))
        return ours

    def _noted(self, operation: Operation, call: Callable[[], int]) -> int:
        result = call()
        if result == _OK:
            self.operations.append(operation)
        return result
