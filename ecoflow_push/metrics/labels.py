"""Who speaks: what every series of this installation is called and labelled by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Settings

NONE: Mapping[str, str] = {}


class Labels:
    """The names of an installation.

    `job` is the devices' label, `instance` that of the run's own series, `prefix` what
    every metric name begins with, `extra` what goes on every series, and `of_run` what
    else goes on the run's own.
    """

    __slots__ = ("extra", "instance", "job", "of_run", "prefix")

    def __init__(
        self,
        job: str,
        instance: str,
        prefix: str,
        extra: Mapping[str, str],
        of_run: Mapping[str, str] = NONE,
    ) -> None:
        self.of_run = of_run
        self.job = job
        self.instance = instance
        self.prefix = prefix
        self.extra = extra

    @property
    def run_group(self) -> dict[str, str]:
        """The grouping key of the run's own series."""
        return {"job": f"{self.job}_push", "instance": self.instance, **self.of_run}

    @property
    def check_group(self) -> dict[str, str]:
        """The grouping key of what --check pushes and takes back."""
        return {"job": f"{self.job}_check", "instance": self.instance}


def create_labels(settings: Settings) -> Labels:
    """Return the names of the settings."""
    shard = settings.accounts.shard if settings.accounts else None
    return Labels(
        settings.job,
        settings.instance,
        settings.prefix,
        settings.extra_labels,
        {"shard": str(shard.index)} if shard else NONE,
    )
