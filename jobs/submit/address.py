"""Where a cluster's dashboard is, which takes jobs over HTTP, and whether it wants a token."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import RequestException
from urllib3.exceptions import ProtocolError

from poolscore.engine.config_text import one_line
from poolscore.engine.errors import ConfigError, StoppedError

LOCAL = "http://127.0.0.1:8265"  # where a head node puts it if nothing else is said
ADDRESSES = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"  # in this order, as Ray's own command does
SECONDS = 5.0, 20.0  # to connect, and to answer
OPEN = "disabled"  # mode of a cluster that wants no token
AWAY = (502, 503, 504)  # of what stands before a cluster
_GIVE = f"give the dashboard's HTTP address, such as --address {LOCAL}"


def dashboard_address(given: str | None, configured: str | None = None) -> str:
    """The dashboard's URL: as given, else as the environment says, else as configured, else this machine's.

    Raises:
        ConfigError: it is an address of another kind.
    """
    where, address = "--address", given
    for name, value in (*((name, os.environ.get(name)) for name in ADDRESSES), ("submit.address", configured)):
        if not address:
            where, address = name, value
    if not address or address in ("auto", "local"):
        return LOCAL
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if parts.scheme == "ray":
        raise ConfigError(f"{where}: {address} is an address of Ray Client, which takes no jobs; {_GIVE}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}: '{address}' is no address of a cluster; {_GIVE}")
    if parts.username or parts.password:
        raise ConfigError(f"{where}: credentials do not belong into an address; a token is read from RAY_AUTH_TOKEN")
    return url.rstrip("/")


def authentication_mode(url: str, headers: Mapping[str, str] | None = None) -> str:
    """What the cluster asks of its callers, by its open endpoint: OPEN, or 'token' or another kind of token.

    Args:
        headers: that a proxy before the cluster wants.

    Raises:
        ConfigError: nobody answers there within seconds, or somebody who is no dashboard.
        StoppedError: what stands before the cluster answers, and says that it is away.
    """
    try:
        answer = requests.get(f"{url}/api/authentication_mode", headers=headers, timeout=SECONDS, **way_to(url))
    except NoConnection as error:
        if any(isinstance(cause, ProtocolError) for cause in error.args):
            raise ConfigError(
                f"{url} answers, but not as a dashboard; is this the port of the cluster itself (GCS, 6379)? {_GIVE}"
            ) from error
        raise ConfigError(f"{url}: no Ray cluster answers there ({_reason(error)}); {_GIVE}") from error
    except RequestException as error:
        raise ConfigError(f"{url}: no Ray cluster answers there ({_reason(error)}); {_GIVE}") from error
    if answer.status_code == requests.codes.not_found:
        return OPEN  # a version of Ray that knows of no tokens; or no Ray at all, which the next question tells
    if answer.status_code in AWAY:
        raise StoppedError(f"{url} is in trouble (status {answer.status_code}: {one_line(answer.text)[:200]})")
    mode = _json(answer).get("authentication_mode")
    if not isinstance(mode, str):
        raise ConfigError(f"{url} answers, but not as a dashboard (status {answer.status_code}); {_GIVE}")
    return mode


def is_loopback(url: str) -> bool:
    """Whether what is sent there stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def way_to(url: str) -> dict[str, Any]:
    """Options of a request, by which it goes where it is sent, as it is; requests heeds more of the environment."""
    options: dict[str, Any] = {"auth": lambda request: request}  # else a ~/.netrc replaces the token
    if is_loopback(url):
        options["proxies"] = {"http": None, "https": None, "all": None}
    return options


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(error: BaseException) -> str:
    """The system's own words, out of what requests and urllib3 wrap around them."""
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return one_line(inner).rpartition("object at 0x")[2].partition(": ")[2] or one_line(inner)
