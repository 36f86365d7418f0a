"""Take one snapshot of EcoFlow devices, push it to Prometheus, exit with the truth.

    python push.py              settings → client → snapshots → registry → sinks
    python push.py --every      stay, and walk that road on a schedule
    python push.py --init       ask for the settings, try them, write a file of them
    python push.py --check      say what is wrong, step by step, and what to do
    python push.py --dry-run    print what would be pushed
    python push.py --demo       the same road, from a simulated EcoFlow cloud

The settings are environment variables (docs/settings.md), the exit statuses those of
sysexits.h where they fit (docs/exit-statuses.md).

All of this file is in the grammar of Python 3.6: an older Python is to say one line.
"""

import gc
import os
import sys

try:
    if sys.version_info < (3, 11):  # noqa: UP036 - a clone is run by what is there
        from ecoflow_push.start.installation import leave_old_python

        leave_old_python(os.environ)
    from ecoflow_push.start.signals import leave_on_signals, leave_with_a_word
except ImportError:
    WHOLE = "push.py needs the folder ecoflow_push beside it, and no PYTHONSAFEPATH"
    sys.stderr.write("ERROR exit 78 CONFIG: " + WHOLE + "\n")
    sys.exit(78)
except (MemoryError, OSError):
    # So early nobody can say which of them it is.
    SPENT = "the host lacks memory or open files: allow more (ulimit -v, -n), or look"
    sys.stderr.write("ERROR exit 71 OSERR: " + SPENT + " for a failing disk\n")
    sys.exit(71)

if __name__.endswith("__main__"):
    # Before anything that takes time; the installed command imports this file so.
    leave_on_signals(sys.argv[1:])
    # For one short run, looking for cycles costs more than it frees, imports above all.
    gc.disable()
    # Our package is found by now; nothing else is here, to be looked for here first.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    from ecoflow_push.start.exit import pass_over, tell_uncaught

    sys.excepthook = lambda *what: tell_uncaught(os.environ, *what)
    sys.unraisablehook = pass_over
    from ecoflow_push.start.lock_probe import leave_if_held

    leave_if_held(sys.argv[1:], os.environ)

from ecoflow_push.road import main
from ecoflow_push.start.exit import leave


def entry() -> None:
    """Be the process: the installed command, and this file as a script."""
    if not any(each.startswith("--every") for each in sys.argv):
        leave_with_a_word(stays=False)
    try:
        status = main(sys.argv[1:], os.environ)
    except SystemExit as exc:  # --help, --version, a wrong option
        status = exc.code if isinstance(exc.code, int) else 0
    leave(status)


if __name__ == "__main__":
    entry()
