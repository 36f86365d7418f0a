"""The settings: the environment, read once, all faults in one message."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ecoflow_push.config.environ import DEFAULT_API_HOST, Reader, Secret

# They name whose data it is; they open nothing.
TENANT_HEADERS = ("x-scope-orgid", "thanos-tenant")
LEAST_MQTT_INTERVAL = 60.0
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Server(NamedTuple):
    """An HTTP server that takes what is pushed, and how it is to be approached."""

    url: str
    username: str | None
    password: Secret | None
    bearer_token: Secret | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    def access(self) -> dict[str, str | None]:
        """Return all but the URL, secrets revealed, as the sinks take it."""
        fields = self._asdict()
        del fields["url"]
        return {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in fields.items()
        }


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
    #: One process for many runs.
    stays: bool
    #: The interval is longer than what was asked for.
    is_interval_raised: bool
    healthcheck_url: Secret | None
    exporter_port: int | None
    run_deadline: float
    stale_after: float
    pushgateway: Server | None
    remote_write: Server | None
    remote_write_version: str
    remote_write_headers: dict[str, str]
    spool_max_age: float
    spool_max_bytes: int
    #: write-ahead or on-failure.
    spool_mode: str
    textfile_path: str | None
    job: str
    instance: str
    prefix: str
    #: raw, normalized or both.
    metrics_set: tuple[str, ...]
    metrics_naming: str
    extra_labels: dict[str, str]
    state_dir: str
    log_level: str
    log_format: str
    proxies: dict[str, str]

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str],
        *,
        needs_sink: bool = True,
        every: float | None = None,
    ) -> Settings:
        """Return the settings that `environ` describes.

        `every` is what --every says: seconds, 0 for COLLECTING_INTERVAL, None where
        there is but one run.

        Raises SettingsError that names every fault, or its subclass
        CredentialsConflictError when both credential pairs compete.
        """
        read = Reader(environ)
        self = cls()
        self._read_ecoflow(read)
        self._read_run(read, every)
        self._read_sinks(read)
        if every is None:
            # One run is over before anybody could look.
            self.exporter_port = None
        self.proxies = read.proxies()
        if needs_sink and not self.has_sink:
            read.fault(
                "no sink: set PUSHGATEWAY_URL, REMOTE_WRITE_URL or TEXTFILE_PATH (with"
                " --every, EXPORTER_PORT also is one), or use --dry-run"
            )
        read.raise_faults()
        return self

    @property
    def has_sink(self) -> bool:
        """Whether what is collected goes anywhere but to the screen."""
        pushes = self.pushgateway or self.remote_write or self.textfile_path
        return bool(pushes or self.exporter_port)

    @property
    def keys(self) -> tuple[str, str, str]:
        """What EcoFlow may refuse: the host, and the two keys there."""
        access, secret = self.access_key, self.secret_key
        return (
            self.api_url,
            access.reveal() if access else "",
            secret.reveal() if secret else "",
        )

    def secrets(self) -> list[str]:
        """Return every text that must not appear in any output."""
        servers = [server for server in (self.pushgateway, self.remote_write) if server]
        held = [
            self.access_key,
            self.secret_key,
            self.account_user,
            self.account_password,
            self.healthcheck_url,
            *(server.bearer_token for server in servers),
            *(server.password for server in servers),
        ]
        texts = [secret.reveal() for secret in held if secret]
        pairs = [
            (server.username or "", server.password.reveal())
            for server in servers
            if server.password
        ]
        for server in servers:
            query = server.url.partition("?")[2]
            texts += [query, *(unquote(p.partition("=")[2]) for p in query.split("&"))]
            if server.username and not (server.password and server.password.reveal()):
                # A token in the user's place.
                texts.append(server.username)
        for name, value in self.remote_write_headers.items():
            if name.lower() not in TENANT_HEADERS:
                # The whole, and what stands behind "Bearer", say.
                texts += [value, value.rpartition(" ")[2]]
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
        self.api_url = read.api_url("ECOFLOW_API_HOST", DEFAULT_API_HOST)
        self.api_ca_file = read.existing_file("ECOFLOW_CA_FILE")
        self.device_sns = read.serials("ECOFLOW_DEVICE_SN")
        self.device_names = read.names("ECOFLOW_DEVICE_NAME", self.device_sns)
        self.attempts = read.count("ESTABLISH_ATTEMPTS", 5, 1, 100) or 5
        self.longest_wait = read.seconds("RETRY_TIMEOUT", 30, 0)
        self.mqtt_timeout = read.seconds("MQTT_TIMEOUT", 60, 1)

    def _read_run(self, read: Reader, every: float | None) -> None:
        self.stays = every is not None
        asked = read.seconds("COLLECTING_INTERVAL", 10, 1)
        asked = every or asked
        # No limit is published; more than a visit a minute looks like an attack.
        least = LEAST_MQTT_INTERVAL if "mqtt" in self.sources else 0.0
        self.interval = max(asked, least)
        self.is_interval_raised = self.interval > asked
        self.exporter_port = read.count("EXPORTER_PORT", None, 1, 65535)
        # Some time before the next beat, or a run that hangs would cost that one too.
        spare = max(0.5, self.interval / 10)
        deadline = 50.0 if every is None else min(50.0, self.interval - spare)
        self.run_deadline = read.seconds("RUN_DEADLINE", deadline, 1)
        self.healthcheck_url = read.whole_url("HEALTHCHECK_URL")
        self.stale_after = read.seconds("STALE_AFTER", 300, 0)
        self.job = read.text("PUSH_JOB") or "ecoflow"
        self.instance = read.text("PUSH_INSTANCE") or read.instance(self.job)
        self.prefix = read.prefix("METRICS_PREFIX", "ecoflow")
        self.metrics_set = read.choices("METRICS_SET", ("raw", "normalized"))
        namings = ("ecoflow", "berezhinskiy")
        self.metrics_naming = read.choice("METRICS_NAMING", namings) or namings[0]
        self.extra_labels = read.labels("EXTRA_LABELS")
        self.state_dir = read.state_dir("STATE_DIR")
        self.log_level = read.choice("LOG_LEVEL", LOG_LEVELS) or "INFO"
        self.log_format = read.choice("LOG_FORMAT", ("text", "json")) or "text"

    def _read_sinks(self, read: Reader) -> None:
        self.pushgateway = _read_server(read, "PUSHGATEWAY")
        if self.pushgateway:
            # What people paste.
            base = self.pushgateway.url.rstrip("/").removesuffix("/metrics")
            self.pushgateway = self.pushgateway._replace(url=base)
        # Its whole address is the user's to say, down to the last slash.
        self.remote_write = _read_server(read, "REMOTE_WRITE", query=True)
        versions = ("1", "2", "auto")
        self.remote_write_version = read.choice("REMOTE_WRITE_VERSION", versions) or "1"
        self.remote_write_headers = read.headers("REMOTE_WRITE_HEADERS")
        names = {name.lower() for name in self.remote_write_headers}
        server = self.remote_write
        other = server and (server.username or server.bearer_token)
        if other and "authorization" in names:
            read.fault(
                "REMOTE_WRITE_HEADERS: Authorization, and so have other variables"
            )
        self.spool_max_age = read.seconds("SPOOL_MAX_AGE", 86_400, 0)
        # 1e12: more than any disk that this should fill.
        most = read.count("SPOOL_MAX_BYTES", 20 * 1024 * 1024, 0, 10**12)
        self.spool_max_bytes = most or 0
        modes = ("write-ahead", "on-failure")
        self.spool_mode = read.choice("SPOOL_MODE", modes) or modes[0]
        self.textfile_path = read.raw("TEXTFILE_PATH")
        if self.textfile_path and os.path.isdir(self.textfile_path):
            read.fault("TEXTFILE_PATH: expected a file, not a folder")


def _read_server(read: Reader, name: str, *, query: bool = False) -> Server | None:
    """Return the server of the variables that begin with `name`, None if unset."""
    url = read.url(f"{name}_URL", query=query)
    username = read.text(f"{name}_USERNAME")
    password = read.secret(f"{name}_PASSWORD")
    bearer_token = read.header_secret(f"{name}_BEARER_TOKEN")
    basic = read.pair(f"{name}_USERNAME", f"{name}_PASSWORD")
    if basic and bearer_token:
        read.fault(f"{name}_BEARER_TOKEN: not together with {name}_USERNAME")
    if url and url.username is not None:
        if basic or bearer_token:
            read.fault(f"{name}_URL: has credentials, and so have other variables")
        username = unquote(url.username)
        password = Secret(unquote(url.password or ""))
    files = [
        read.existing_file(f"{name}_{file}_FILE") for file in ("CA", "CERT", "KEY")
    ]
    if files[2] and not files[1]:
        read.fault(f"{name}_KEY_FILE: needs {name}_CERT_FILE")
    if not url:
        return None
    return Server(_without_userinfo(url), username, password, bearer_token, *files)


def _without_userinfo(url: SplitResult) -> str:
    netloc, path = url.netloc.rpartition("@")[2], quote(url.path, safe="/%")
    return f"{url.scheme}://{netloc}{path}" + (f"?{url.query}" if url.query else "")
