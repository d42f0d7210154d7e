"""Find what looks like a secret in text that is about to be shared. Strict on purpose: a false alarm costs a minute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_LINE = 20_000
"""Characters of a line that are searched at a time; longer lines are searched in overlapping parts."""

_OVERLAP = 400

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("a private key", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"),
        ("a Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{16}"),
        ("an API key (sk-...)", r"\bsk-[A-Za-z0-9_-]{16}"),
        ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20}|github_pat_\w{20})"),
        ("a GitLab token", r"\bglpat-[\w-]{16}"),
        ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("a Google API key", r"\bAIza[\w-]{30}"),
        ("a Slack token or webhook", r"\bxox[a-z]-[\w-]{10,}|hooks\.slack\.com/services/\w+"),
        ("a Weights & Biases key", r"\b(?:wandb_v1_\w{20}|(?i:wandb)\W.{0,60}?\b[0-9a-f]{40}\b)"),
        ("a JSON web token", r"\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,}"),
        ("a password in a URL", r"[a-zA-Z0-9+.-]{1,20}://[^\s/@:'\"]{0,200}:[^\s/@'\"]{1,200}@"),
        ("a token in a URL", r"[?&](?i:token|access_token|api_?key|key|sig|signature|password)=[^\s&'\"<>]{8,}"),
        ("a bearer token", r"(?i:\bbearer)\s{1,4}[\w.~+/-]{16}"),
    )
)

# A key that names a secret, with a value that could be one: `api_key: abc...`, "hub_token": "...", PASSWORD=...
_NAMED = re.compile(
    r"""(?ix)
    (?: api[_-]?key | access[_-]?key | secret | passw(?:or)?d | passphrase | credentials? | auth[_-]?token
      | (?:hub|hf|access|auth|bot|refresh|session|wandb|comet|mlflow)[_-]?token | (?<![a-z])token (?!\w)
    ) [\w-]{0,40}
    ["']? \s{0,4} [:=] \s{0,4} ["']? (?P<value>[^\s"',;}\]]{4,200})
    """
)
_HARMLESS = re.compile(r"(?i)(?:true|false|null|none|~|\*+|x+|<[^>]*>|\$\{?\w+\}?|your[-_].*|\.\.\.|\[.*|\{.*|&\w+)$")


class Finding(NamedTuple):
    """The line, from 1, and what it looks like. The secret itself is never kept."""

    line: int
    kind: str


def find_secrets(text: str) -> list[Finding]:
    """Search a text for what looks like a secret: at most one finding for each line and kind, in order."""
    found: list[Finding] = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = (line[start : start + MAX_LINE + _OVERLAP] for start in range(0, len(line), MAX_LINE))
        kinds = dict.fromkeys(kind for part in parts for kind in _kinds(part))
        found.extend(Finding(number, kind) for kind in kinds)
    return found


def _kinds(text: str) -> Iterator[str]:
    for kind, pattern in _KINDS:
        if pattern.search(text):
            yield kind
    for match in _NAMED.finditer(text):
        if not _HARMLESS.match(match["value"]):
            yield "a value under a name such as token, password or api_key"
            break
