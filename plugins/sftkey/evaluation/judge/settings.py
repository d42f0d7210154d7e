"""Where the judge is and how it is asked: the ``SFTKEY_JUDGE_*`` environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PAPER_JUDGE = "meta-llama/Meta-Llama-3-70B-Instruct"
"""The judge of section 3, used where ``SFTKEY_JUDGE_MODEL`` is not set."""


class JudgeMode(StrEnum):
    """Which items the judge is asked about."""

    FALLBACK = "fallback"
    """Those that the rules can't settle."""
    ALWAYS = "always"
    """All that have an answer."""
    OFF = "off"
    """None."""


@dataclass(frozen=True)
class JudgeSettings:
    """Where the judge is and how it is asked.

    Attributes:
        base_url: Address of the server's API, usually ending in ``/v1``.
        model: Name of the judge model on that server.
        api_key: Secret for the server; ``None`` for a server without authentication. Neither shown by ``repr`` nor
            logged, cached or put in an exception; it is cut out of what the server says.
        mode: Which items to ask about. `sftkey.evaluation.judge.client.judge` itself asks about every item it is given.
        concurrency: Number of requests in flight.
        cache_dir: Folder of the verdict cache.
        timeout: Seconds that one attempt may take.
        max_retries: Further attempts after a timeout, a lost connection, or status 408, 409, 429 or 5xx.

    Raises:
        ValueError: A value is outside its range. The message never holds the API key.
    """

    base_url: str
    model: str = PAPER_JUDGE
    api_key: str | None = field(default=None, repr=False)
    mode: JudgeMode = JudgeMode.FALLBACK
    concurrency: int = 32
    cache_dir: Path = field(default_factory=lambda: default_cache_dir(os.environ))
    timeout: float = 60.0
    max_retries: int = 4

    def __post_init__(self) -> None:
        _check_base_url(self.base_url)
        if not self.model:
            raise ValueError("the judge's model name is empty")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            # An HTTP header can't carry it, and the client's own error would show it.
            raise ValueError("the judge's API key holds a space or a character that is not printable ASCII")
        if not 1 <= self.concurrency <= 1000:
            raise ValueError(f"the judge's concurrency is {self.concurrency}, not 1 to 1000")
        if not self.timeout > 0:
            raise ValueError(f"the judge's timeout is {self.timeout}, not a positive number of seconds")
        if self.max_retries < 0:
            raise ValueError(f"the judge's max_retries is {self.max_retries}, a negative number")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> JudgeSettings | None:
        """Read the ``SFTKEY_JUDGE_*`` variables; an empty variable counts as unset.

        Args:
            environ: The environment.

        Returns:
            The settings, or ``None`` where there is no judge: no ``SFTKEY_JUDGE_BASE_URL``, or the mode is ``off``.

        Raises:
            ValueError: A variable has a value that it can't have; the message names the variable.
        """
        given = {name: environ.get(f"SFTKEY_JUDGE_{name}", "").strip() for name in (*_VARIABLES, "MODE")}
        if not given["BASE_URL"]:
            return None
        mode = given["MODE"].lower() or JudgeMode.FALLBACK.value
        if mode not in set(JudgeMode):
            raise ValueError(f"SFTKEY_JUDGE_MODE is {mode!r}, not one of {', '.join(JudgeMode)}")
        if mode == JudgeMode.OFF:
            return None
        values: dict[str, Any] = {"mode": JudgeMode(mode), "cache_dir": default_cache_dir(environ)}
        for name, (argument, convert) in _VARIABLES.items():
            if given[name]:
                try:
                    values[argument] = convert(given[name])
                    settings = cls(**values)
                except (ValueError, RuntimeError) as error:
                    raise ValueError(f"SFTKEY_JUDGE_{name}: {error}") from None
        return settings


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The verdict cache of a user: ``$XDG_CACHE_HOME/sftkey/judge``, by default in ``~/.cache``."""
    root = environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sftkey" / "judge"


# The variables' names without SFTKEY_JUDGE_, the fields that they set, and how. The address comes first: no other field is
# without a default.
_VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "BASE_URL": ("base_url", str),
    "MODEL": ("model", str),
    "API_KEY": ("api_key", str),
    "CONCURRENCY": ("concurrency", int),
    "CACHE": ("cache_dir", lambda text: Path(text).expanduser()),
}


def _check_base_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if "@" in url or parts.query:
        # Not shown: the part before the @, or the query, may be a secret.
        raise ValueError("the judge's base URL holds credentials or a query; give the key in SFTKEY_JUDGE_API_KEY")
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"the judge's base URL is {url!r}, not like http://localhost:8000/v1")
