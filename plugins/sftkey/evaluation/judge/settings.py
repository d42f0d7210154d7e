"""Where the judge is and how it is asked: the ``SFTKEY_JUDGE_*`` environment variables."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sftkey.evaluation.judge.prompt import PAPER_PROMPT, PromptTemplate

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


class Fitness(StrEnum):
    """What is done about a judge's fitness (`sftkey.evaluation.judge.fitness`)."""

    REQUIRED = "required"
    """It is measured, and a judge below the bound is not asked."""
    REPORTED = "reported"
    """It is measured, and the judge is asked whatever it is."""
    OFF = "off"
    """It is not measured."""


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
        max_tokens: Length of a reply; a judge that thinks first needs thousands. 64 hold yes or no and a sentence.
        temperature: Sampling temperature; ``None`` to leave it to the server.
        extra_body: More keys of the request's body, such as ``chat_template_kwargs``.
        prompt: The question put to the judge.
        fitness: What is done about its fitness.

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
    max_tokens: int = 64
    temperature: float | None = 0
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    prompt: PromptTemplate = PAPER_PROMPT
    fitness: Fitness = Fitness.REQUIRED

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
        if not 1 <= self.max_tokens <= 1_000_000:
            raise ValueError(f"the judge's max_tokens is {self.max_tokens}, not 1 to 1000000")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ValueError(f"the judge's temperature is {self.temperature}, not 0 to 2")
        taken = sorted(_OWN_BODY_KEYS & self.extra_body.keys())
        if taken:
            raise ValueError(f"the judge's extra body has {', '.join(taken)}, which a request has anyway")

    @property
    def parameters(self) -> dict[str, Any]:
        """What a request says beside the model and the message, as it is part of a cached verdict's key."""
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        return {**sampling, "max_tokens": self.max_tokens, **self.extra_body}

    @property
    def described(self) -> dict[str, Any]:
        """What a file of results says about the judge. Of the extra body a digest: it may hold another service's key."""
        body = json.dumps(self.extra_body, sort_keys=True).encode()
        return {
            "judge": self.model,
            "mode": self.mode.value,
            "prompt": self.prompt.digest,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "extra_body": hashlib.sha256(body).hexdigest()[:12] if self.extra_body else None,
            "fitness": self.fitness.value,
        }

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> JudgeSettings | None:
        """Read the ``SFTKEY_JUDGE_*`` variables; an empty variable counts as unset.

        Args:
            environ: The environment; by default the process's.

        Returns:
            The settings, or ``None`` where there is no judge: no ``SFTKEY_JUDGE_BASE_URL``, or the mode is ``off``.

        Raises:
            ValueError: A variable has a value that it can't have; the message names the variable.
        """
        # No default value: after a map in processes `datasets` puts another object in the place of os.environ.
        environ = os.environ if environ is None else environ
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
    "TIMEOUT": ("timeout", float),
    "MAX_TOKENS": ("max_tokens", int),
    "TEMPERATURE": ("temperature", lambda text: None if text.lower() == "none" else float(text)),
    "EXTRA_BODY": ("extra_body", lambda text: _json_object(text)),
    "PROMPT": ("prompt", lambda text: PromptTemplate.read(Path(text).expanduser())),
    "FITNESS": ("fitness", lambda text: _fitness(text.lower())),
}

_OWN_BODY_KEYS = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "n"}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("""not a JSON object such as {"chat_template_kwargs": {"enable_thinking": false}}""")
    return value


def _fitness(text: str) -> Fitness:
    if text not in set(Fitness):
        raise ValueError(f"{text!r} is not one of {', '.join(Fitness)}")
    return Fitness(text)


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
