"""RestApiClient: EcoFlow's REST developer API, read with an access and a secret key."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.developer import DeveloperApi
from ecoflow_push.api.envelope import REGIONAL_HOSTS, no_devices
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.lanes import MOST_LANES, Lanes, lanes_for
from ecoflow_push.api.models import DeviceInfo
from ecoflow_push.config.kinds import Secret, Variable
from ecoflow_push.errors import EcoflowApiException, Finding, NoDevices
from ecoflow_push.memory.lock import fingerprint
from ecoflow_push.net.exchange import open_exchange
from ecoflow_push.net.retry import Patience
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

# The two that pin a region first: what routes by location may lead elsewhere tomorrow.
REGIONS = tuple(f"https://{host}" for host in reversed(REGIONAL_HOSTS))

#: In seconds: no limit is known below which one must not go.
LEAST_INTERVAL = 0.0
VARIABLES = (
    Variable(
        "ECOFLOW_ACCESS_KEY",
        "access key of the REST developer API (developer.ecoflow.com, in Europe"
        " developer-eu.ecoflow.com)",
    ),
    Variable("ECOFLOW_SECRET_KEY", "its secret key"),
)


class DeveloperKeys:
    """The two keys of a developer account."""

    __slots__ = ("access_key", "secret_key")

    #: What would be wrong without one.
    needs_memory = ""

    def __init__(self, access_key: Secret, secret_key: Secret) -> None:
        self.access_key = access_key
        self.secret_key = secret_key

    @property
    def account(self) -> str:
        """Whose data it is."""
        return self.access_key.reveal()


def read(read: Reader) -> DeveloperKeys | None:
    """Return the keys, None if they are not set, or not as they must be."""
    access_key = read.header_secret("ECOFLOW_ACCESS_KEY")
    secret_key = read.header_secret("ECOFLOW_SECRET_KEY")
    read.pair("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY")
    return DeveloperKeys(access_key, secret_key) if access_key and secret_key else None


def create(
    keys: DeveloperKeys,
    settings: Settings,
    state: State,
    folder: str | None,  # noqa: ARG001 - of every source; this one keeps nothing there
) -> RestApiClient:
    """Return the client; raises SettingsError for a bad CA file."""
    url = settings.api_url
    access_key, secret_key = keys.access_key.reveal(), keys.secret_key.reveal()
    return RestApiClient(
        url,
        access_key,
        secret_key,
        Guard(state, fingerprint(url, access_key, secret_key)),
        trust=Trust(settings.api_ca_file, prefix="ECOFLOW"),
        proxies=settings.proxies,
        patience=Patience(settings.attempts, settings.longest_wait),
    )


class RestApiClient(EcoflowApiClient):
    """Reads what the developer API holds of an account's own devices."""

    name = "rest"
    title = "developer keys"

    def __init__(
        self,
        api_url: str,
        access_key: str,
        secret_key: str,
        guard: Guard,
        *,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        proxies: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        regions: Sequence[str] = REGIONS,
    ) -> None:
        """Store what is needed; nothing is contacted.

        Raises SettingsError when the CA file cannot be used.
        """
        super().__init__()
        self._api_url = api_url
        self._keys = (access_key, secret_key)
        self._guard = guard
        self._trust = trust
        self._proxies = proxies or {}
        self._patience = patience or Patience()
        #: The URLs among which a key may be at home.
        self.regions = regions
        self._api = self._open(api_url)
        self._is_probed = False
        self._devices: list[DeviceInfo] | None = None
        self._by_sn: dict[str, DeviceInfo] = {}
        #: What a probe met, and a run would have.
        self._met: EcoflowApiException | None = None

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's, in seconds."""
        return self._api.clock_offset()

    def dial_ahead(self, seconds: float) -> None:
        """Begin to connect, if EcoFlow may be asked; returns at once."""
        if self._guard.allows(self):
            # As many as the same devices will take as soon as they are listed.
            self._api.dial_ahead(lanes_for(self._guard.known()), seconds)

    def read(self, named: Sequence[str], deadline: Deadline) -> Iterator[Reading]:
        """Yield a reading of each device named, of each of the account if none is."""
        self.wanted = [DeviceInfo(sn) for sn in named]
        readings = self._read(named, deadline)
        return readings if self._is_probed else self._guard.over(self, readings)

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Ask for the device list, and for the key's region if it is unknown here."""
        from ecoflow_push.api import probe

        host = self._api_url.partition("://")[2]
        self._is_probed = True
        for finding in probe.reach(self._api_url, self._trust, self._proxies, deadline):
            self._met = finding.error  # type: ignore[assignment]  # reach's own kind
            yield finding
        if self._met:
            yield Finding("unknown", "EcoFlow", "not asked")
            yield from probe.standing(host, self._met)
            return

        def ask() -> None:
            self._guard.check_pause(self)
            self._list(deadline)

        self._api.close()
        self._api = self._open(self._api_url, is_rare=True)
        self._met = probe.met(host, deadline, ask)
        yield probe.answer(host, self._met)
        if self._met and self._met.code == "8513" and self._api_url in self.regions:
            yield from self._look_elsewhere(host, self._met, deadline)
            return
        is_accepted = self._met is None or isinstance(self._met, NoDevices)
        again = is_accepted and self._guard.wake()
        accepted = f"accepted{', again: the next runs use them' * again}"
        yield from probe.standing(host, self._met, accepted=accepted)

    def close(self) -> None:
        """Close the kept connections."""
        self._api.close()

    def _open(
        self, url: str, *, is_rare: bool = False, is_exchanged: bool = False
    ) -> DeveloperApi:
        keys = self._keys[::-1] if is_exchanged else self._keys
        exchange = open_exchange(
            url,
            trust=self._trust,
            proxies=self._proxies,
            lanes=MOST_LANES,
            is_rare=is_rare,
            who=fingerprint(*keys),
        )
        return DeveloperApi(url, *keys, exchange, self._patience)

    def _list(self, deadline: Deadline) -> list[DeviceInfo]:
        """Return the account's devices, asked for once; raises NoDevices."""
        if self._devices is None:
            self._devices = self._api.devices(deadline)
        if not self._devices:
            raise no_devices()
        self.listed = self._devices
        return self._devices

    def _read(self, named: Sequence[str], deadline: Deadline) -> Iterator[Reading]:
        if self._met:
            raise self._met
        devices = self._list(deadline)
        by_sn = self._by_sn = {device.sn: device for device in devices}
        # As it is spelt in the list; one that is not listed may be readable.
        spelt = {sn: by_sn.get(sn) or by_sn.get(sn.upper()) for sn in named}
        wanted = [device or DeviceInfo(sn) for sn, device in spelt.items()]
        self.wanted = list(dict.fromkeys(wanted)) or devices
        api, in_turn = self._api, self._guard.in_turn(self.wanted, deadline.left())
        lanes = Lanes(in_turn, self._read_one, deadline, lambda: api.throttled)
        yield from lanes.readings()

    def _read_one(self, device: DeviceInfo, deadline: Deadline) -> Reading:
        if device.online is False:
            # Its cached values would be answered all the same, however old they are.
            return Reading(device, self.name)
        try:
            return Reading(device, self.name, self._api.quotas(device.sn, deadline))
        except EcoflowApiException as exc:
            is_listed = device.sn in self._by_sn
            error = exc
            if not is_listed:
                from ecoflow_push.api.unlisted import unlisted

                error = unlisted(exc, self._by_sn)
            return Reading(device, self.name, error=error)

    def _look_elsewhere(
        self, host: str, refusal: EcoflowApiException, deadline: Deadline
    ) -> Iterator[Finding]:
        """Say where the key that is unknown here is known, or what else it may be."""
        hosts = [host]
        for url in self.regions:
            if url == self._api_url:
                continue
            other, error = self._ask_at(url, deadline)
            # The service looks at the signature of keys that it knows.
            if error is None or error.code == "8521":
                self.known_at = other
                text = f"the key is unknown at {host} and known at {other}"
                cure = f"set ECOFLOW_API_HOST={other}"
                yield Finding("wrong", "region", text, cure, refusal)
                yield (
                    Finding.of("credentials", error)
                    if error
                    else Finding("ok", "credentials", f"accepted by {other}")
                )
                return
            hosts += [other] * (error.code == "8513")
        yield Finding("unknown", "region", "no host that could be asked knows the key")
        # The host that was set first: it is the likeliest.
        for url in dict.fromkeys((self._api_url, *self.regions)):
            other, error = self._ask_at(url, deadline, is_exchanged=True)
            if error is None:
                text = f"the two keys look exchanged: {other} takes them the other way"
                cure = "let ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY change places"
                if url != self._api_url:
                    cure += f", and set ECOFLOW_API_HOST={other}"
                yield Finding("wrong", "credentials", text, cure, refusal)
                return
        text = f"code 8513: the access key is unknown at {', '.join(hosts)}"
        yield Finding("wrong", "credentials", text, "check ECOFLOW_ACCESS_KEY", refusal)

    def _ask_at(
        self, url: str, deadline: Deadline, *, is_exchanged: bool = False
    ) -> tuple[str, EcoflowApiException | None]:
        """Return a host, and what it said to the keys; None if it took them."""
        from ecoflow_push.api import probe

        host, share = url.partition("://")[2], deadline.share(0.3)
        api = self._open(url, is_rare=True, is_exchanged=is_exchanged)
        error = probe.met(host, share, partial(api.devices, share))
        api.close()
        return host, error
