"""What --check tries besides EcoFlow and the sinks: settings, memory, the monitor."""

from __future__ import annotations

import os
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING

from ecoflow_push.errors import Finding, Unreachable
from ecoflow_push.limits import links
from ecoflow_push.memory.state import FOLDER_CURE, NAME, NONE
from ecoflow_push.memory.trial import TRIED, cure_of, try_file
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.run.effective import effective
from ecoflow_push.run.healthcheck import MOST_SECONDS, create_healthcheck
from ecoflow_push.run.say import noted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.retry import Reply
    from ecoflow_push.run.healthcheck import Healthcheck

ROOTS = "; the folder is new, and root's"
NOT_WANTED = (
    f"{NONE}: nothing is remembered, and what no sink takes is lost at once; that is"
    " meant for developer keys where there is no disk"
)
ROOTS_CURE = "check as the job's user, or let it own STATE_DIR (chown -R)"
URL_CURE = "check HEALTHCHECK_URL"
CERTIFICATE_CURE = "check the host in HEALTHCHECK_URL, and that this machine trusts it"
TIME_CURE = "look for a firewall in the way, or check HEALTHCHECK_URL"
#: What is least harmful comes first: a note in the monitor's log changes nothing. What
#: begins a run, every run sends; a monitor that knows neither gets nothing of a run.
WAYS = ("/log", "/start")
#: What healthchecks.io answers with 200, in full, to a ping of an unknown check.
UNKNOWN = b"OK (not found)"


class Around:
    """The surroundings of a job."""

    def __init__(
        self,
        settings: Sequence[Finding],
        folder: str | None,
        healthcheck: Healthcheck | None,
    ) -> None:
        """Store what is needed; `folder` is that of the state, None if there is none.

        `settings` are what is to be said of them, odd or not.
        """
        self.settings = settings
        self._folder = folder
        self._healthcheck = healthcheck

    def memory(self, state: State) -> Iterator[Finding]:
        """Write into the state folder, and say whether anything can be remembered."""
        if self._folder is None:
            yield Finding("ok", "state", NOT_WANTED)
            return
        path = os.path.join(self._folder, NAME)
        error = try_file(path)
        if not (state.trouble or error):
            is_roots = os.geteuid() == 0 and not os.path.lexists(path)
            # No run was here, perhaps it will be another user's.
            text, cure = (TRIED + ROOTS, ROOTS_CURE) if is_roots else (TRIED, "")
            yield Finding("ok", "state", text, cure)
            return
        reason = state.reason or (error and error.strerror) or "unknown"
        cure = state.cure or FOLDER_CURE
        cure = cure_of(error, "STATE_DIR", cure) if error else cure
        yield Finding("wrong", "state", f"nothing can be remembered, {reason}", cure)

    def monitor(self, deadline: Deadline) -> Iterator[Finding]:
        """Ask for the address of the dead man's switch, and change as little there.

        As in a run, there is at least a second for it.
        """
        healthcheck = self._healthcheck
        if healthcheck is None:
            return
        share = Deadline(min(MOST_SECONDS, max(1.0, deadline.left())))
        found: list[Finding] = []
        within(share, lambda: found.append(_asked(healthcheck, share)))
        late = Finding("wrong", "healthcheck", "no answer in time", TIME_CURE)
        yield next(iter(found), late)


def create_around(settings: Settings, folder: str | None) -> Around:
    """Return the surroundings of the settings; `folder` is that of the state."""
    defaults = {
        "COLLECTING_INTERVAL": f"{settings.interval:g}",
        "ECOFLOW_API_HOST": settings.api_url.partition("://")[2],
        "RUN_DEADLINE": f"{settings.run_deadline:g}",
        "STATE_DIR": settings.state_dir or "",
    }
    said = [*effective(settings.reader, defaults), *map(noted, settings.notes)]
    return Around(said, folder, create_healthcheck(settings))


def _asked(healthcheck: Healthcheck, deadline: Deadline) -> Finding:
    """Return what the monitor says of a note in its log, else of a run's beginning."""
    for way in WAYS:
        try:
            reply = healthcheck.ask(way, "ecoflow-push --check", deadline)
        except Unreachable as exc:
            return Finding("wrong", "healthcheck", exc.text, _cure(exc))
        if 200 <= reply.status < 300:
            if reply.body.strip() == UNKNOWN:
                text = "the service answers, and does not know this check"
                return Finding("wrong", "healthcheck", text, URL_CURE)
            return Finding("ok", "healthcheck", f"took URL{way}, HTTP {reply.status}")
        if not 400 <= reply.status < 500:
            break
    return _refused(reply)


def _cure(error: Unreachable) -> str:
    """Return what to do; neither a deadline nor an authority can be set for it."""
    for link in links(error):
        if isinstance(link, SSLCertVerificationError):
            return CERTIFICATE_CURE
        if isinstance(link, TimeoutError):
            return TIME_CURE
    return error.cure or URL_CURE


def _refused(reply: Reply) -> Finding:
    text, cure = f"HTTP {reply.status}", URL_CURE
    if 300 <= reply.status < 400:
        text += f", a redirect{reply.leads_to()}, not followed"
    elif reply.status >= 500:
        cure = "wait, the fault is on its side"
    else:
        text += f" to {' and '.join(f'URL{way}' for way in WAYS)}"
        cure += ", which is to know /start as healthchecks.io does"
    return Finding("wrong", "healthcheck", text, cure)
