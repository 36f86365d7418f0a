"""Where a registry goes: knows nothing of EcoFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.settings import Settings
    from ecoflow_push.sinks.pushgateway import PushgatewaySink
    from ecoflow_push.sinks.textfile import TextfileSink


def create_pushgateway(settings: Settings) -> PushgatewaySink | None:
    """Return the Pushgateway of the settings, None if there is none.

    Raises SettingsError when a certificate or key file cannot be used.
    """
    if not settings.pushgateway_url:
        return None
    from ecoflow_push.sinks.pushgateway import PushgatewaySink

    password = settings.pushgateway_password
    token = settings.pushgateway_bearer_token
    return PushgatewaySink(
        settings.pushgateway_url,
        username=settings.pushgateway_username,
        password=password.reveal() if password else None,
        bearer_token=token.reveal() if token else None,
        ca_file=settings.pushgateway_ca_file,
        cert_file=settings.pushgateway_cert_file,
        key_file=settings.pushgateway_key_file,
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
