"""Where a registry goes: knows nothing of EcoFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Server, Settings
    from ecoflow_push.sinks.exporter import ExporterSink
    from ecoflow_push.sinks.pushgateway import PushgatewaySink
    from ecoflow_push.sinks.remote_write import RemoteWriteSink
    from ecoflow_push.sinks.textfile import TextfileSink


def create_pushgateway(settings: Settings) -> PushgatewaySink | None:
    """Return the Pushgateway of the settings, None if there is none.

    Raises SettingsError when a certificate or key file cannot be used.
    """
    server = settings.pushgateway
    if not server:
        return None
    from ecoflow_push.sinks.pushgateway import PushgatewaySink

    return PushgatewaySink(
        server.url,
        **server.access(),
        proxies=settings.proxies,
        attempts=settings.attempts,
        longest_wait=settings.longest_wait,
    )


def create_remote_write(
    settings: Settings, server: Server, known_version: str
) -> RemoteWriteSink:
    """Return the remote-write endpoint at `server`.

    `known_version` is what an earlier run found out. Raises SettingsError when a
    certificate or key file cannot be used.
    """
    from ecoflow_push.sinks.remote_write import RemoteWriteSink

    return RemoteWriteSink(
        server.url,
        **server.access(),
        version=settings.remote_write_version,
        known_version=known_version,
        headers=settings.remote_write_headers,
        proxies=settings.proxies,
        attempts=settings.attempts,
        longest_wait=settings.longest_wait,
    )


def create_textfile(settings: Settings) -> TextfileSink | None:
    """Return the textfile of the settings, None if there is none."""
    if not settings.textfile_path:
        return None
    from ecoflow_push.sinks.textfile import TextfileSink

    return TextfileSink(settings.textfile_path)


def create_exporter(settings: Settings) -> ExporterSink | None:
    """Return the pull port of the settings, listening, None if there is none.

    Raises SettingsError when the port cannot be used.
    """
    if not settings.exporter_port:
        return None
    from ecoflow_push.sinks.exporter import ExporterSink

    return ExporterSink(settings.exporter_port, settings.stale_after)
