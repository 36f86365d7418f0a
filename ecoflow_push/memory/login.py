"""The login file: what an app account has earned, kept for the next runs.

A process that starts anew every minute must not log in every minute, nor repeat a
refused password. The file (0600) is the only place that ever holds the token and the
broker's password; it is bound to one host and user.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import TypeVar

from ecoflow_push.config.kinds import is_serial
from ecoflow_push.memory.files import NewerFile, read_json, write_json
from ecoflow_push.redact import learn_tokens

log = logging.getLogger(__name__)

FILE_VERSION = 1
LONGEST_SECRET = 4096
# A token's real life is not known (protocol/account.md#lifetime).
KEPT_SECONDS = 12 * 3600.0
REFUSED_SECONDS = 3600.0


class Login:
    """What a login earned; `obtained_at` in Unix seconds."""

    # In the order in which they are kept.
    __slots__ = (*("user_id", "token"), "obtained_at")

    # No NamedTuple, here and below: making the class is dear.
    def __init__(self, user_id: str, token: str, obtained_at: float) -> None:
        self.user_id = user_id
        self.token = token
        self.obtained_at = obtained_at

    def learnt(self) -> Login:
        """Return the same, which nothing prints from now on."""
        learn_tokens(self.user_id, self.token)
        return self

    def is_usable(self) -> bool:
        """Return whether it can stand in a topic, a client id and a header."""
        token = self.token
        is_token = token.isascii() and token.isprintable()
        return is_serial(self.user_id) and is_token and 0 < len(token) < LONGEST_SECRET


class Certification:
    """What the broker wants to see, and the login that it came from."""

    # In the order in which they are kept.
    __slots__ = (
        *("user_id", "token", "host", "port"),
        *("username", "password", "tls", "obtained_at"),
    )

    def __init__(  # noqa: PLR0917 - a row in a file
        self,
        user_id: str,
        token: str,
        host: str,
        port: int,
        username: str,
        password: str,
        tls: bool,  # noqa: FBT001 - of a row in a file
        obtained_at: float,
    ) -> None:
        self.user_id = user_id
        self.token = token
        self.host = host
        self.port = port
        self.username = username
        self.password = password
        self.tls = tls
        self.obtained_at = obtained_at

    def learnt(self) -> Certification:
        """Return the same, which nothing prints from now on."""
        learn_tokens(self.user_id, self.token, self.username, self.password)
        return self

    def is_usable(self) -> bool:
        """Return whether its texts can stand where the protocol wants them."""
        texts = (self.token, self.username, self.password)
        return is_serial(self.user_id) and all(
            text.isprintable() and 0 < len(text) < LONGEST_SECRET for text in texts
        )


Kept = TypeVar("Kept", Login, Certification)


class LoginFile:
    """What is known of an account; the caller fills it in, and saves it."""

    def __init__(self, path: str | None, host: str, user: str, password: str) -> None:
        """Store what it is bound to; a `path` of None keeps it in memory alone."""
        self.login: Login | None = None
        self.certification: Certification | None = None
        #: The last device list: name and product name by serial, and when it came.
        self.names: dict[str, dict[str, str]] = {}
        self.listed_at = 0.0
        self._path = path
        self._bound = [host, user]
        self._secret = f"{user}\0{password}".encode()
        self._refused: dict[str, object] = {}
        self._is_loaded = self._is_told = False

    def load(self) -> None:
        """Read the file, once; what is damaged, foreign or too old is left out."""
        if self._is_loaded or self._path is None:
            return
        self._is_loaded = True
        try:
            found = os.stat(self._path, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                log.warning(
                    "%s is readable by others, so it is not used: chmod 600",
                    self._path,
                )
                return
            data = read_json(self._path, FILE_VERSION, "login and device list")
        except NewerFile:
            log.warning(
                "%s was written by a newer version of this program and stays as it is,"
                " so each run logs in: update this program",
                self._path,
            )
            self._path = None
            return
        except OSError:
            # Not there, mostly; whether it can be written is seen when it is.
            return
        if data and data.get("bound") == self._bound:
            self._take(data)

    def save(self) -> None:
        """Write the file, whole or not at all (0600)."""
        if self._path is None:
            return
        fields = {
            "bound": self._bound,
            "login": _row(self.login),
            "certification": _row(self.certification),
            "refused": self._refused,
            "names": self.names,
            "listed_at": self.listed_at,
        }
        try:
            write_json(self._path, FILE_VERSION, fields)
        except OSError as exc:
            said = "cannot keep the login in %s (%s): the next run must log in again"
            # A run saves it more than once, and what ails the disk is told once.
            log.log(
                logging.DEBUG if self._is_told else logging.WARNING,
                said,
                self._path,
                exc.strerror,
            )
            self._is_told = True

    def refused_for(self) -> float:
        """Return for how many seconds this very password must not be tried again."""
        at, salt = self._refused.get("at"), self._refused.get("salt")
        if not isinstance(at, float) or not isinstance(salt, str) or not salt.isascii():
            return 0.0
        age = time.time() - at
        if not 0 <= age < REFUSED_SECONDS:
            return 0.0
        is_same = self._hash(salt) == self._refused.get("hash")
        return REFUSED_SECONDS - age if is_same else 0.0

    def refused(self) -> None:
        """Remember that the password was refused, and save it."""
        salt = os.urandom(16).hex()
        self.login = self.certification = None
        self._refused = {"salt": salt, "hash": self._hash(salt), "at": time.time()}
        self.save()

    def accepted(self, login: Login) -> None:
        """Remember a login, and save it: what comes next may fail."""
        self.login = login
        self._refused = {}
        self.save()

    def _hash(self, salt: str) -> str:
        import hashlib

        # Slow on purpose: a password can be guessed, and this file may be copied.
        return hashlib.scrypt(
            self._secret, salt=salt.encode(), n=2**14, r=8, p=1, dklen=32
        ).hex()

    def _take(self, data: dict[str, object]) -> None:
        refused, names = data.get("refused"), data.get("names")
        self._refused = refused if isinstance(refused, dict) else {}
        if isinstance(names, dict) and _is_map_of_texts(names):
            self.names = names
        listed_at = data.get("listed_at")
        self.listed_at = listed_at if isinstance(listed_at, float) else 0.0
        self.login = _kept(data.get("login"), Login, (str, str, float))
        kinds = (str, str, str, int, str, str, bool, float)
        self.certification = _kept(data.get("certification"), Certification, kinds)


def _kept(fields: object, made: type[Kept], kinds: tuple[type, ...]) -> Kept | None:
    """Return what the file kept, None if it is damaged or too old."""
    if not isinstance(fields, list) or len(fields) != len(kinds):
        return None
    if any(type(f) is not kind for f, kind in zip(fields, kinds, strict=True)):
        return None
    kept = made(*fields).learnt()
    is_young = 0 <= time.time() - kept.obtained_at < KEPT_SECONDS
    return kept if is_young and kept.is_usable() else None


def _row(kept: Login | Certification | None) -> list[object] | None:
    """Return what the file is to keep."""
    return None if kept is None else [getattr(kept, name) for name in kept.__slots__]


def _is_map_of_texts(value: dict[str, object]) -> bool:
    return all(is_serial(sn) for sn in value) and all(
        isinstance(inner, dict)
        and all(isinstance(text, str) for text in inner.values())
        for inner in value.values()
    )
