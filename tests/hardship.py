"""Hard surroundings for one process: full or read-only disks, limits, missing rights.

Each is brought about in the process itself, between fork and work, and is over with it:
its mounts are in a namespace of its own. Where the system lets nobody do so, the test
says why it cannot run.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Sequence
from contextlib import suppress

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 0x20, 0x1000, 0x4000, 0x40000
PR_CAPBSET_DROP = 24
#: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root into closed folders.
OVERRIDES = (1, 2)
CAPABILITIES_V3 = 0x20080522


def endure(hardships: Sequence[Sequence[str]]) -> None:
    """Let this process live with all of them."""
    for name, argument in hardships:
        _KINDS[name](argument)


def full(folder: str) -> None:
    """Put a disk without a free byte in the place of a folder."""
    _mount(folder, 0)
    with suppress(OSError), open(os.path.join(folder, "filler"), "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()


def read_only(folder: str) -> None:
    """Put a disk that takes nothing in the place of a folder."""
    _mount(folder, MS_RDONLY)


def unchangeable(folder: str) -> None:
    """Let nothing in a folder be changed any more."""
    _apart()
    place, libc = folder.encode(), ctypes.CDLL(None, use_errno=True)
    _done(libc.mount(place, place, None, MS_BIND, None))
    _done(libc.mount(None, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))


def small_files(most: str) -> None:
    """Let no file grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))


def ordinary(_: str) -> None:
    """Let rights count, even for root."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in OVERRIDES:
        _done(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    data = (ctypes.c_uint32 * 6)()
    _done(libc.capget(header, data))
    for word in range(3):
        data[word] &= ~sum(1 << capability for capability in OVERRIDES)
    _done(libc.capset(header, data))


def another_user(uid: str) -> None:
    """Be someone whom no folder is closed to, and to whom no file belongs."""
    os.seteuid(int(uid))
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    data = (ctypes.c_uint32 * 6)()
    _done(libc.capget(header, data))
    data[0] = sum(1 << capability for capability in OVERRIDES)
    _done(libc.capset(header, data))


def _mount(folder: str, flags: int) -> None:
    _apart()
    os.makedirs(folder, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.mount(b"none", folder.encode(), b"tmpfs", flags, b"size=16k"))


def _apart() -> None:
    """Let mounts be this process's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    _done(libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if uid else 0)))
    if uid:
        # Who is nobody there can make no file, on whatever disk (EOVERFLOW).
        _tell("uid_map", f"{uid} {uid} 1")
        _tell("setgroups", "deny")
        _tell("gid_map", f"{gid} {gid} 1")
    _done(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def _tell(file: str, text: str) -> None:
    with open(f"/proc/self/{file}", "w", encoding="ascii") as kernel:
        kernel.write(text)


def _done(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


KINDS = (full, read_only, unchangeable, small_files, ordinary, another_user)
_KINDS = {each.__name__: each for each in KINDS}
