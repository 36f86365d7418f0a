"""The settings: the environment, read once, all faults in one message."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ecoflow_push.environ import Reader, Secret

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Settings:
    """Everything the environment decides, checked; durations are seconds."""

    #: Which ways to read, in their order: rest, mqtt or both.
    sources: tuple[str, ...]
    access_key: Secret | None
    secret_key: Secret | None
    account_user: Secret | None
    account_password: Secret | None
    api_url: str
    api_ca_file: str | None
    device_sns: tuple[str, ...]
    device_names: dict[str, str]
    attempts: int
    longest_wait: float
    mqtt_timeout: float
    interval: float
    exporter_port: int | None
    run_deadline: float
    stale_after: float
    pushgateway_url: str | None
    pushgateway_username: str | None
    pushgateway_password: Secret | None
    pushgateway_bearer_token: Secret | None
    pushgateway_ca_file: str | None
    pushgateway_cert_file: str | None
    pushgateway_key_file: str | None
    textfile_path: str | None
    job: str
    instance: str
    prefix: str
    extra_labels: dict[str, str]
    state_dir: str
    log_level: str
    log_format: str
    proxies: dict[str, str]

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, needs_sink: bool = True
    ) -> Settings:
        """Return the settings that `environ` describes.

        Raises SettingsError that names every fault, or its subclass
        CredentialsConflictError when both credential pairs compete.
        """
        read = Reader(environ)
        self = cls()
        self._read_ecoflow(read)
        self._read_run(read)
        self._read_pushgateway(read)
        self.textfile_path = read.raw("TEXTFILE_PATH")
        if self.textfile_path and os.path.isdir(self.textfile_path):
            read.fault("TEXTFILE_PATH: expected a file, not a folder")
        self.proxies = read.proxies()
        if needs_sink and not (self.pushgateway_url or self.textfile_path):
            read.fault(
                "no sink: set PUSHGATEWAY_URL or TEXTFILE_PATH, or use --dry-run"
            )
        read.raise_faults()
        return self

    def secrets(self) -> list[str]:
        """Return every text that must not appear in any output."""
        held = [
            self.access_key,
            self.secret_key,
            self.account_user,
            self.account_password,
            self.pushgateway_bearer_token,
            self.pushgateway_password,
        ]
        texts = [secret.reveal() for secret in held if secret]
        pairs = [(self.pushgateway_username, texts[-1])] if texts else []
        for proxy in self.proxies.values():
            parts = urlsplit(proxy)
            if parts.password:
                texts.append(unquote(parts.password))
                pairs.append((unquote(parts.username or ""), texts[-1]))
        # As basic authentication carries them: in one piece.
        return texts + [f"{user}:{password}" for user, password in pairs if user]

    def _read_ecoflow(self, read: Reader) -> None:
        self.access_key = read.header_secret("ECOFLOW_ACCESS_KEY")
        self.secret_key = read.header_secret("ECOFLOW_SECRET_KEY")
        self.account_user = read.secret("ECOFLOW_ACCOUNT_USER")
        self.account_password = read.secret("ECOFLOW_ACCOUNT_PASSWORD")
        keys = read.pair("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY")
        account = read.pair("ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD")
        source = read.choice("ECOFLOW_SOURCE", ("rest", "mqtt", "auto"))
        if not source:
            if keys and account:
                read.conflict(
                    "both developer keys and an app account are set:"
                    " remove one pair, or set ECOFLOW_SOURCE to rest, mqtt or auto"
                )
            elif not keys and not account:
                read.fault(
                    "no credentials: set ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"
                )
        elif source in ("rest", "auto") and not keys:
            read.fault(
                f"ECOFLOW_SOURCE={source} needs ECOFLOW_ACCESS_KEY and _SECRET_KEY"
            )
        elif source in ("mqtt", "auto") and not account:
            read.fault(
                f"ECOFLOW_SOURCE={source} needs ECOFLOW_ACCOUNT_USER and _PASSWORD"
            )
        source = source or ("rest" if keys else "mqtt")
        self.sources = ("rest", "mqtt") if source == "auto" else (source,)
        self.api_url = read.api_url("ECOFLOW_API_HOST", "api.ecoflow.com")
        self.api_ca_file = read.existing_file("ECOFLOW_CA_FILE")
        self.device_sns = read.serials("ECOFLOW_DEVICE_SN")
        self.device_names = read.names("ECOFLOW_DEVICE_NAME", self.device_sns)
        self.attempts = read.count("ESTABLISH_ATTEMPTS", 5, 1, 100) or 5
        self.longest_wait = read.seconds("RETRY_TIMEOUT", 30, 0)
        self.mqtt_timeout = read.seconds("MQTT_TIMEOUT", 60, 1)

    def _read_run(self, read: Reader) -> None:
        self.interval = read.seconds("COLLECTING_INTERVAL", 10, 1)
        self.exporter_port = read.count("EXPORTER_PORT", None, 1, 65535)
        self.run_deadline = read.seconds("RUN_DEADLINE", 50, 1)
        self.stale_after = read.seconds("STALE_AFTER", 300, 0)
        self.job = read.text("PUSH_JOB") or "ecoflow"
        self.instance = read.text("PUSH_INSTANCE") or read.instance(self.job)
        self.prefix = read.prefix("METRICS_PREFIX", "ecoflow")
        self.extra_labels = read.labels("EXTRA_LABELS")
        self.state_dir = read.state_dir("STATE_DIR")
        self.log_level = read.choice("LOG_LEVEL", LOG_LEVELS) or "INFO"
        self.log_format = read.choice("LOG_FORMAT", ("text", "json")) or "text"

    def _read_pushgateway(self, read: Reader) -> None:
        url = read.url("PUSHGATEWAY_URL")
        self.pushgateway_url = url and _without_userinfo(url)
        self.pushgateway_username = read.text("PUSHGATEWAY_USERNAME")
        self.pushgateway_password = read.secret("PUSHGATEWAY_PASSWORD")
        self.pushgateway_bearer_token = read.header_secret("PUSHGATEWAY_BEARER_TOKEN")
        basic = read.pair("PUSHGATEWAY_USERNAME", "PUSHGATEWAY_PASSWORD")
        if basic and self.pushgateway_bearer_token:
            read.fault(
                "PUSHGATEWAY_BEARER_TOKEN: not together with PUSHGATEWAY_USERNAME"
            )
        if url and url.username is not None:
            if basic or self.pushgateway_bearer_token:
                read.fault(
                    "PUSHGATEWAY_URL: has credentials, and so have other variables"
                )
            self.pushgateway_username = unquote(url.username)
            self.pushgateway_password = Secret(unquote(url.password or ""))
        self.pushgateway_ca_file = read.existing_file("PUSHGATEWAY_CA_FILE")
        self.pushgateway_cert_file = read.existing_file("PUSHGATEWAY_CERT_FILE")
        self.pushgateway_key_file = read.existing_file("PUSHGATEWAY_KEY_FILE")
        if self.pushgateway_key_file and not self.pushgateway_cert_file:
            read.fault("PUSHGATEWAY_KEY_FILE: needs PUSHGATEWAY_CERT_FILE")


def _without_userinfo(url: SplitResult) -> str:
    """Return the gateway's base URL; a trailing /metrics is what people paste."""
    path = url.path.rstrip("/").removesuffix("/metrics")
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{quote(path, safe='/%')}"
