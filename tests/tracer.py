"""Runs a program up to one of its system calls, and kills it there, or lets that fail.

    python -I -S tests/tracer.py JSON program argument ...

JSON is an object of what `Order` holds. What was done is appended to the file `report`,
a JSON list a line. The status is the program's, 137 where it was killed.

strace can inject as much, but it counts each thread's calls apart, so that a thread's
first never comes after the main thread's first; here the calls of all are one row.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import struct
import sys
from typing import NamedTuple

# x86-64's numbers. Of each call, which arguments are paths, or else a descriptor's.
PATHS, DESCRIPTOR, POLLED, ANY = "paths", "descriptor", "polled", "any"
CALLS = {
    "read": (0, DESCRIPTOR, 0),
    "write": (1, DESCRIPTOR, 0),
    "close": (3, DESCRIPTOR, 0),
    "fstat": (5, DESCRIPTOR, 0),
    "poll": (7, POLLED, 0),
    "select": (23, ANY, 0),
    "socket": (41, ANY, 0),
    "connect": (42, DESCRIPTOR, 0),
    "pwrite64": (18, DESCRIPTOR, 0),
    "sendto": (44, DESCRIPTOR, 0),
    "recvfrom": (45, DESCRIPTOR, 0),
    "sendmsg": (46, DESCRIPTOR, 0),
    "recvmsg": (47, DESCRIPTOR, 0),
    "shutdown": (48, DESCRIPTOR, 0),
    "getpeername": (52, DESCRIPTOR, 0),
    "setsockopt": (54, DESCRIPTOR, 0),
    "getsockopt": (55, DESCRIPTOR, 0),
    "flock": (73, DESCRIPTOR, 0),
    "fsync": (74, DESCRIPTOR, 0),
    "fdatasync": (75, DESCRIPTOR, 0),
    "ftruncate": (77, DESCRIPTOR, 0),
    "rename": (82, PATHS, 2),
    "mkdir": (83, PATHS, 1),
    "rmdir": (84, PATHS, 1),
    "unlink": (87, PATHS, 1),
    "chmod": (90, PATHS, 1),
    "fchmod": (91, DESCRIPTOR, 0),
    "getdents64": (217, DESCRIPTOR, 0),
    "openat": (257, PATHS, 1),
    "newfstatat": (262, PATHS, 1),
}
NAMES = {number: name for name, (number, *_) in CALLS.items()}
# The calls whose first argument is a folder's descriptor, the path the second.
AT = ("openat", "newfstatat")
#: What changes something for anybody else: before any other call a kill finds what it
#: finds before the next of these.
CHANGES = (
    *("openat", "write", "pwrite64", "close", "fsync", "fdatasync", "ftruncate"),
    *("rename", "mkdir", "rmdir", "unlink", "chmod", "fchmod", "flock", "socket"),
    *("connect", "sendto", "sendmsg", "recvfrom", "recvmsg", "read", "shutdown"),
)
#: What each may be refused with.
SHORT = "half of it is taken"
_DISK = ("EIO", "ENOSPC", "EDQUOT", "EROFS")
_LINE = ("ETIMEDOUT", "EIO", "EAGAIN", "ENOBUFS")
ERRORS = {
    "openat": ("EMFILE", "EIO", "ENFILE", "EROFS", "ENOSPC", "EDQUOT"),
    "write": ("ENOSPC", SHORT, "EIO", "EDQUOT"),
    "pwrite64": ("ENOSPC", SHORT, "EIO", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO", "ENOSPC", "EDQUOT"),
    "rename": _DISK,
    "mkdir": _DISK,
    "unlink": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EROFS"),
    "chmod": ("EIO", "EROFS"),
    "fchmod": ("EIO", "EROFS"),
    "ftruncate": ("EIO", "ENOSPC"),
    "flock": ("EAGAIN", "EIO", "ENOLCK"),
    "fstat": ("EIO",),
    "newfstatat": ("EIO",),
    "read": ("EIO",),
    "getdents64": ("EIO",),
    "close": ("EIO", "ENOSPC", "EDQUOT"),
    "socket": ("EMFILE", "ENFILE", "ENOBUFS"),
    "connect": ("ETIMEDOUT", "EAGAIN", "EIO"),
    "sendto": (*_LINE, SHORT),
    "sendmsg": (*_LINE, SHORT),
    "recvfrom": _LINE,
    "recvmsg": _LINE,
    "poll": ("ENOMEM", "EIO", "EAGAIN"),
    "select": ("ENOMEM", "EIO"),
    "shutdown": ("EIO",),
    "setsockopt": ("ENOBUFS", "EIO"),
    "getsockopt": ("ENOBUFS", "EIO"),
}
# Of a socket's descriptor.
ON_A_LINE = {"read": _LINE, "write": (*_LINE, SHORT), "close": ("EIO",)}
FOR_WRITING = ("EROFS", "ENOSPC", "EDQUOT")
KILLED = 128 + signal.SIGKILL


class Order(NamedTuple):
    """What is to be done, and at which call."""

    #: The folders whose files count; sockets always do.
    folders: list[str]
    #: The names of the calls that count.
    calls: list[str]
    #: Which of them it is to be, from 0 on; -1 for none: all are reported then.
    at: int
    #: Which of the errors that are possible there; -1 is a kill, and then only what
    #: changes something counts.
    turn: int
    #: Whether all later calls of that name are to fail likewise, too.
    stays: bool
    report: str


class Registers(NamedTuple):
    """What a call was asked with, of x86-64's user_regs_struct."""

    number: int
    arguments: tuple[int, int, int, int]

    @classmethod
    def of(cls, raw: ctypes.Array[ctypes.c_ulonglong]) -> Registers:
        return cls(raw[15], (raw[14], raw[13], raw[12], raw[7]))


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, CONT, GETREGS, SETREGS, SYSCALL, SETOPTIONS = 0, 7, 12, 13, 24, 0x4200
# Of every thread and child; it ends with us.
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
SECCOMP_EVENT = 7
WALL = 0x40000000
RAX, RDX, ORIG_RAX = 10, 12, 15


def ptrace(request: int, tid: int, data: object = None) -> None:
    if _LIBC.ptrace(request, tid, None, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def let_pass(names: list[str]) -> None:
    """From now on stop this process at these calls alone (seccomp)."""
    numbers = [CALLS[name][0] for name in names]
    code = struct.pack("HBBI", 0x20, 0, 0, 0)  # the call's number
    code += b"".join(
        struct.pack("HBBI", 0x15, len(numbers) - place, 0, number)
        for place, number in enumerate(numbers)
    )
    code += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # go on
    code += struct.pack("HBBI", 0x06, 0, 0, 0x7FF00000)  # stop
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    whole = ctypes.create_string_buffer(program, len(program))
    no_new_privileges, set_filter = 38, 22
    if _LIBC.prctl(no_new_privileges, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if _LIBC.prctl(set_filter, 2, ctypes.c_void_p(ctypes.addressof(whole)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


class Tracer:
    """Watches one program."""

    def __init__(self, order: Order, command: list[str]) -> None:
        self.order = order
        self.count = 0
        self.kind = ("", False)
        self.error = 0
        self._due: dict[int, int] = {}
        self._raw = (ctypes.c_ulonglong * 27)()
        self.pid = os.fork()
        if not self.pid:
            ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            let_pass(order.calls)
            os.execv(command[0], command)

    def run(self) -> int:
        """Return the status of the program."""
        os.waitpid(self.pid, 0)
        ptrace(SETOPTIONS, self.pid, OPTIONS)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(self.pid, signal.SIGTERM))
        ptrace(CONT, self.pid)
        while True:
            tid, status = os.waitpid(-1, WALL)
            if not os.WIFSTOPPED(status):
                if tid == self.pid:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
                continue
            try:
                self._go_on(tid, os.WSTOPSIG(status), status >> 16)
            except ProcessLookupError:  # it was killed
                continue

    def _go_on(self, tid: int, number: int, event: int) -> None:
        request = CONT
        if event == SECCOMP_EVENT:
            request = self._meet(tid)
            number = 0
        elif number == signal.SIGTRAP | 0x80:
            # A call that was done, and is said to have failed.
            ptrace(GETREGS, tid, self._raw)
            self._raw[RAX] = -self._due.pop(tid) & 2**64 - 1
            ptrace(SETREGS, tid, self._raw)
            number = 0
        elif event or number in (signal.SIGSTOP, signal.SIGTRAP):
            number = 0
        ptrace(request, tid, number)

    def _meet(self, tid: int) -> int:
        """Do what is due at a call, and return how to go on."""
        ptrace(GETREGS, tid, self._raw)
        name = NAMES[self._raw[ORIG_RAX]]
        what = self._concerns(tid, name, Registers.of(self._raw))
        if not what or (self.order.turn < 0 and not self._changes(name, what)):
            return CONT
        place, at = self.count, self.order.at
        # What a socket may be refused with, a file may not.
        kind = (name, what.startswith("socket:"))
        self.count += 1
        if at < 0:
            self._report(place, name, what, "")
        elif place == at and self.order.turn < 0:
            self._report(place, name, what, "KILL")
            os.kill(self.pid, signal.SIGKILL)
        elif place == at:
            said = self._choose(name, what)
            self.kind = kind
            self.error = 0 if said == SHORT else getattr(errno, said)
            self._report(place, name, what, said)
            return self._refuse(tid, name)
        elif self.order.stays and kind == self.kind:
            return self._refuse(tid, name)
        return CONT

    def _refuse(self, tid: int, name: str) -> int:
        """Let a call fail, or do half of what it was asked; return how to go on."""
        if name == "close":
            # It has closed all the same.
            self._due[tid] = self.error
            return SYSCALL
        if self.error:
            self._raw[ORIG_RAX] = 2**64 - 1
            self._raw[RAX] = -self.error & 2**64 - 1
        else:
            self._raw[RDX] = max(1, self._raw[RDX] // 2)
        ptrace(SETREGS, tid, self._raw)
        return CONT

    def _changes(self, name: str, what: str) -> bool:
        """Return whether a kill before this call is another one than before the next.

        Of files, opening one that is there, reading and closing it change nothing.
        """
        if name == "openat":
            return bool(self._raw[RDX] & os.O_CREAT)
        if name in ("read", "close"):
            return what.startswith("socket:") or what.endswith("/lock")
        return name in CHANGES

    def _choose(self, name: str, what: str) -> str:
        errors = ERRORS[name]
        if what.startswith("socket:"):
            errors = ON_A_LINE.get(name, errors)
        elif name == "openat" and not self._raw[RDX] & (os.O_WRONLY | os.O_RDWR):
            errors = tuple(each for each in errors if each not in FOR_WRITING)
        return errors[self.order.turn % len(errors)]

    def _concerns(self, tid: int, name: str, asked: Registers) -> str:
        """Return which file or socket a call is about, "" if none of ours."""
        _, kind, count = CALLS[name]
        first, second, *_ = asked.arguments
        if kind == ANY:
            # IPv4 and IPv6 alone.
            return f"{name}:" if name != "socket" or first in (2, 10) else ""
        if kind == POLLED:
            if not second:
                return ""
            first = struct.unpack("i", self._memory(tid, first, 4))[0]
        if kind == PATHS:
            places = (second,) if name in AT else (first, second)[:count]
            paths = [self._text(tid, place) for place in places]
            if paths[-1]:
                folders = tuple(self.order.folders)
                is_ours = any(path.startswith(folders) for path in paths)
                return " ".join(paths) if is_ours else ""
        try:
            link = os.readlink(f"/proc/{tid}/fd/{first}")
        except OSError:
            return ""
        folders = ("socket:", *self.order.folders)
        return link if link.startswith(folders) else ""

    def _memory(self, tid: int, place: int, size: int) -> bytes:
        with open(f"/proc/{tid}/mem", "rb", 0) as file:
            return os.pread(file.fileno(), size, place)

    def _text(self, tid: int, place: int) -> str:
        return self._memory(tid, place, 512).partition(b"\0")[0].decode()

    def _report(self, *said: object) -> None:
        with open(self.order.report, "a") as file:
            print(json.dumps(said), file=file)


if __name__ == "__main__":
    sys.exit(Tracer(Order(**json.loads(sys.argv[1])), sys.argv[2:]).run())
