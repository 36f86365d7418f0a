"""What is asked, as data: by which ways one may read and push, and what each needs.

A way is that of the source or sink whose first variable it asks for first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ecoflow_push.config.plugs import SINKS, SOURCES


class Question(NamedTuple):
    """One variable, and the words for it.

    `default` is offered where nothing was said before. What is `optional` may be left
    out, what is `hidden` is not echoed.
    """

    name: str
    words: str
    hidden: bool = False
    default: str = ""
    optional: bool = False

    def at(self, server: str) -> Question:
        """Return the same of a server, whose variables begin so."""
        return self._replace(name=server + self.name)


class Way(NamedTuple):
    """A source, a sink or a login: its words in a menu, and what it asks."""

    words: str
    questions: tuple[Question, ...] = ()
    #: What the variables of a server begin with: it may want to know who we are.
    server: str = ""


# Where Debian's node_exporter looks.
COLLECTED = "/var/lib/prometheus/node-exporter"
WAYS = (
    Way(
        "with developer keys, from developer.ecoflow.com or, in Europe,"
        " developer-eu.ecoflow.com",
        (
            Question("ECOFLOW_ACCESS_KEY", "Access key", hidden=True),
            Question("ECOFLOW_SECRET_KEY", "Secret key", hidden=True),
        ),
    ),
    Way(
        "with the e-mail and password of the app",
        (
            Question("ECOFLOW_ACCOUNT_USER", "E-mail of the account"),
            Question("ECOFLOW_ACCOUNT_PASSWORD", "Its password", hidden=True),
        ),
    ),
    Way(
        "to a Pushgateway",
        (Question("PUSHGATEWAY_URL", "Its address", default="http://localhost:9091"),),
        "PUSHGATEWAY",
    ),
    Way(
        "by remote-write to Prometheus, Mimir, Grafana Cloud or VictoriaMetrics",
        (
            Question(
                "REMOTE_WRITE_URL",
                "The whole address",
                default="http://localhost:9090/api/v1/write",
            ),
        ),
        "REMOTE_WRITE",
    ),
    Way(
        "into a text file for node_exporter",
        (
            Question(
                "TEXTFILE_PATH",
                "The file, whose name ends in .prom",
                default=f"{COLLECTED}/ecoflow.prom" if os.path.isdir(COLLECTED) else "",
            ),
        ),
    ),
)
#: How one can log in at a server; the variables are what its own go on with.
LOGINS = {
    "none": Way("no"),
    "basic": Way(
        "yes, with user name and password",
        (
            Question("_USERNAME", "User name"),
            Question("_PASSWORD", "Password", hidden=True),
        ),
    ),
    "bearer": Way(
        "yes, with a token", (Question("_BEARER_TOKEN", "Token", hidden=True),)
    ),
}
CA_FILE = Question("_CA_FILE", "File with its own authority, if any", optional=True)


def _by_name(plugs: Mapping[str, tuple[str, ...]]) -> dict[str, Way]:
    first = {variables[0]: name for name, variables in plugs.items()}
    asked = ((way.questions[0].name, way) for way in WAYS)
    return {first[variable]: way for variable, way in asked if variable in first}


#: The ways to read and to push, by the name of source or sink.
READING, PUSHING = _by_name(SOURCES), _by_name(SINKS)


def everything() -> Iterator[Question]:
    """Yield every question that there is."""
    for way in WAYS:
        yield from way.questions
        for login in LOGINS.values() if way.server else ():
            yield from (question.at(way.server) for question in login.questions)
