"""The token of a cluster that wants one, from where Ray's own commands take it. It is never shown, logged or sent to
anything but the address that the user gave."""

from __future__ import annotations

import json
import os
from pathlib import Path

from poolscore.engine.errors import ConfigError

TOKEN, TOKEN_PATH, HEADERS = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS"


def default_path() -> Path:
    """Where `ray get-auth-token --generate` puts it."""
    return Path.home() / ".ray" / "auth_token"


def find_token(url: str) -> str:
    """The token for the cluster at `url`.

    Raises:
        ConfigError: there is none.
    """
    if token := os.environ.get(TOKEN, "").strip():
        return token
    named = os.environ.get(TOKEN_PATH)
    path = Path(named) if named else default_path()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named:
            raise ConfigError(f"{TOKEN_PATH}: {named} cannot be read; it is to hold the token of {url}") from error
        token = ""
    if token:
        return token
    raise ConfigError(
        f"{url} wants a token, and there is none: set {TOKEN}, or {TOKEN_PATH} to a file that holds it, or put it into "
        f"{path}"
    )


def given_headers() -> dict[str, str]:
    """Headers that a proxy before the cluster wants, as Ray's own commands take them.

    Raises:
        ConfigError: they are no JSON object of texts.
    """
    try:
        headers = json.loads(os.environ.get(HEADERS) or "{}")
    except ValueError:
        headers = None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ConfigError(f"{HEADERS}: must be a JSON object of texts, such as {{'Cookie': '…'}} in double quotes")
    return headers
