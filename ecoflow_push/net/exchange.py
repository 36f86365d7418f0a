"""Which library carries a request: the one decision, in one place.

http.client where a run does it every minute and the way is straight: importing requests
alone would be a third of such a run. requests where it is rare, or where the way is not
straight: it knows proxies, and is kept for that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from ecoflow_push.net.retry import Exchange


def open_exchange(
    url: str,
    *,
    trust: Trust = Trust(),  # noqa: B008 - immutable
    proxies: Mapping[str, str] | None = None,
    lanes: int = 1,
    is_rare: bool = False,
    needs_body: bool = True,
    who: str = "",
) -> Exchange:
    """Return the exchange with the server at `url`; nothing is contacted.

    `lanes` is how many threads may send at once. `proxies` has the keys http, https and
    no, as the usual variables, and under `http from`, `https from` their names.
    `is_rare` says that this is not of every run. Without `needs_body` the status is an
    answer, whatever becomes of the rest. `who` tells apart as whom the server is talked
    to. Raises SettingsError when a certificate or key file cannot be used.
    """
    proxy = proxy_for(url, proxies) if proxies else None
    if proxy or is_rare:
        from ecoflow_push.net.requests_exchange import RequestsExchange

        return RequestsExchange(
            url,
            trust=trust,
            proxy=proxy,
            proxy_variable=variable_of(url, proxies or {}),
            lanes=lanes,
            needs_body=needs_body,
        )
    from ecoflow_push.net.plain import PlainExchange

    return PlainExchange(url, trust=trust, needs_body=needs_body, who=who)


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """Return the proxy through which `url` is reached, None for none."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme)
    if not proxy:
        return None
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    excepted = {"no": proxies.get("no", "")}
    # An IPv6 literal may stand there with brackets or without.
    names = {parts.netloc, parts.hostname}
    is_excepted = any(proxy_bypass_environment(name, excepted) for name in names)
    return None if is_excepted else proxy


def variable_of(url: str, proxies: Mapping[str, str]) -> str:
    """Return the variable in which the proxy for `url` stands, as it was set."""
    scheme = url.partition(":")[0]
    return proxies.get(f"{scheme} from", f"{scheme.upper()}_PROXY")


def authorization(
    username: str | None, password: str | None, bearer_token: str | None
) -> dict[str, str]:
    """Return the header that a server wants to see, none if it wants none."""
    if bearer_token is not None:
        return {"Authorization": f"Bearer {bearer_token}"}
    if username is not None:
        basic = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}
    return {}
