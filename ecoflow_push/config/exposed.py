"""Exposed: what to do with a file of secrets that others can read.

It depends on whose file it is, and on where it comes from: a mode that somebody else
gives it anew, or that is not ours to change, is to be changed there.
"""

from __future__ import annotations

import os

# The link through which Kubernetes exchanges all files of a mounted Secret at once.
MOUNTED = "..data"


def note_on(path: str, pattern: str = "", more: int = 0) -> tuple[str, str]:
    """Return what is wrong with a file, and what to do.

    As much is wrong with `more` files of the `pattern`, which stands for all of them.
    """
    text = f"{path} holds a secret, and others can read it"
    text += f"; so do {more} more" if more else ""
    return text, _cure(path, pattern or path)


def _cure(path: str, pattern: str) -> str:
    place = os.path.expanduser(path)
    try:
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        is_ours = os.geteuid() in (0, os.stat(place).st_uid)
    except OSError:
        is_read_only, is_ours = 0, True
    if os.path.islink(os.path.join(os.path.dirname(place), MOUNTED)):
        return "mount the Secret with defaultMode: 0440, and give the pod an fsGroup"
    if is_read_only:
        return "where it is mounted from, give it mode 440 and a group of this program"
    if not is_ours:
        return f"let its owner give it a group of this program, and chmod 440 {pattern}"
    return f"chmod 600 {pattern}"
