"""What push.py does with --check, for a forker; see tests/check.py.

The arguments are regions, and files of settings.
"""

import os
import sys

from ecoflow_push import logs
from ecoflow_push.api.rest import RestApiClient
from ecoflow_push.config.env_file import over_files
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import EcoflowPushError, SettingsError
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import alarm
from ecoflow_push.run.check import create_check, show_faults
from ecoflow_push.start.exit import leave_hung


def main() -> int:
    """Check, and return the status."""
    files = [each for each in sys.argv[1:] if each.startswith("/")]
    regions = [each for each in sys.argv[1:] if each not in files]
    logs.configure("DEBUG", "text")
    try:
        environ = over_files(files, os.environ) if files else os.environ
        settings = Settings.from_environ(environ, needs_sink=False)
        assert settings.state_dir
        folder = state_folder(settings.state_dir, settings.api_url, "x", settings.job)
        ring = alarm(settings.run_deadline, stays=False, end=leave_hung)
        with ring, State.open(folder) as state:
            check = create_check(settings, state, folder, [])
            for source in check.sources if regions else ():
                assert isinstance(source, RestApiClient)
                source.regions = regions
            return check.run()
    except SettingsError as exc:
        return show_faults(exc)
    except EcoflowPushError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.status


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
