"""Find what looks like a secret in what is about to be shared. Strict on purpose: a false alarm costs a minute.

Nothing that is found is kept or repeated. Time is linear in the text, and memory doesn't grow with it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

from sftkey.stages.secret_forms import FORMS, is_placeholder, switches
from sftkey.stages.secret_names import named_secrets
from sftkey.stages.vocabulary import BREAK, without_entries

MAX_LINE = 65_536
"""Characters that are searched at a time; a longer text is searched in overlapping parts."""

_OVERLAP = 5_000
_MAX_DEPTH = 2
"""How often base64 may be in base64."""

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{16,}+={0,2}")
_NO_SECRET = re.compile(
    r"(?i)(?:\b(?:sha|md|h)\d+[-:]|\b(?:sha\d*|hash|digest|checksum|integrity|fingerprint|etag|commit|revision|thumbprint)"
    r"[\w ]*[\"']?\s?[:=]?\s?[\"']?|://\S*|;base64,|\bssh-[\w-]+ |@)\Z"
)
_ESCAPE = re.compile(r"\\(?:u00([0-7][0-9a-fA-F])|x([0-7][0-9a-fA-F])|(.))|&(amp|quot|lt|gt|#39);")
_NAMES = {"amp": "&", "quot": '"', "lt": "<", "gt": ">", "#39": "'"}


class Finding(NamedTuple):
    """The line, from 1, and what it looks like. The secret itself is never kept."""

    line: int
    kind: str


def find_secrets(text: str) -> list[Finding]:
    """Search a text for what looks like a secret: at most one finding for each line and kind, in order."""
    return list(_search(text[start : start + MAX_LINE] for start in range(0, len(text), MAX_LINE)))


def find_secrets_in(path: Path) -> list[Finding]:
    """Search a file, as `find_secrets` does. Of whole safetensors only the header, which is all the text in it."""
    with path.open("rb") as file:
        return list(_search(_decoded(_parts(file, path))))


def redacted(text: str) -> str:
    """A short text, such as a path or a message, with what looks like a secret replaced by its kind."""
    for start, end, kind in reversed(_apart(_matches(text))):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    # What is found only behind escapes can't be cut out of the text.
    kinds = [kind for view in _views(text) for *_, kind in _matches(view)]
    return f"[{kinds[0]}]" if kinds else text


def _apart(matches: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The matches in order, those that overlap as one."""
    found: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(matches):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), found[-1][2])
        else:
            found.append((start, end, kind))
    return found


def _parts(file: BinaryIO, path: Path) -> Iterator[bytes]:
    header = _safetensors_header(file) if path.suffix == ".safetensors" else None
    if header is not None:
        yield header
        return
    file.seek(0)
    while part := file.read(MAX_LINE):
        yield part


def _safetensors_header(file: BinaryIO) -> bytes | None:
    """The header, if the file is as long as that says: then all of the rest is tensors."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, 100_000_000):  # the format's own bound
        return None
    header = file.read(length)
    try:
        tensors = json.loads(header)
        end = max((one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return header if 8 + length + end == size else None


def _decoded(parts: Iterable[bytes]) -> Iterator[str]:
    """Bytes as text. Without NUL bytes, so that UTF-16 and UTF-32 are read too: a secret is made of ASCII."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        for start in range(0, len(part), MAX_LINE):
            yield decoder.decode(part[start : start + MAX_LINE].replace(b"\0", b""))


def _search(parts: Iterable[str]) -> Iterator[Finding]:
    kept, line = "", 1
    seen: set[Finding] = set()
    for part in parts:
        window = kept + part
        for view in _views(without_entries(window)):
            here, position = line, 0
            for start, _, kind in sorted(_matches(view)):
                here += len(BREAK.findall(view, position, start))
                position = start
                finding = Finding(here, kind)
                if finding not in seen:
                    seen.add(finding)
                    yield finding
        kept = window[-_OVERLAP:]
        line += len(BREAK.findall(window, 0, len(window) - len(kept)))
        seen = {one for one in seen if one.line >= line}


def _views(text: str) -> Iterator[str]:
    """The text, and where it holds escapes of JSON, of XML or of a URL, what they stand for; lines stay lines."""
    yield text
    if "\\" in text or "&" in text:
        yield _ESCAPE.sub(_unescaped, text)
    if "%" in text and (plain := unquote(text, "latin-1")) != text:
        yield "".join(c if c.isprintable() or old else " " for c, old in ((c, c in "\n\t") for c in plain))


def _unescaped(match: re.Match[str]) -> str:
    if code := match[1] or match[2]:
        return chr(int(code, 16)) if chr(int(code, 16)).isprintable() else " "
    if match[4]:
        return _NAMES[match[4]]
    return match[3] if match[3] in "\"'/\\" else " "


def _matches(text: str, depth: int = 0) -> Iterator[tuple[int, int, str]]:
    """Everything that looks like a secret: start, end, kind."""
    lowered, known = text.lower(), list[tuple[int, int, str]]()
    for form in FORMS:
        if any(literal in (lowered if literal.islower() else text) for literal in form.literals):
            for match in form.pattern.finditer(text):
                group = "secret" if "secret" in form.pattern.groupindex else 0
                if not is_placeholder(match[group]) and form.check(match[group]):
                    known.append((*match.span(group), form.kind))
    known += named_secrets(text)
    yield from known
    left = deque(_apart(known))
    for match in _BASE64.finditer(text):
        while left and left[0][1] <= match.start():
            left.popleft()
        if not left or left[0][0] >= match.end():
            yield from _in_base64(match, depth)


def _in_base64(match: re.Match[str], depth: int) -> Iterator[tuple[int, int, str]]:
    """What base64 holds; where it holds no text, whether it is random letters and digits itself."""
    run = match[0].rstrip("=")
    # A part of a longer text may begin anywhere in it.
    for shift in range(4) if match.start() == 0 and len(run) > 1000 else (0,):
        plain = _plain(run[shift:])
        if plain is not None:
            kind = next((kind for _, _, kind in _matches(plain, depth + 1)), None) if depth < _MAX_DEPTH else None
            if kind is not None:
                yield *match.span(), f"{kind}, in base64"
            return
    if _is_random_run(run, match):
        yield *match.span(), "a random text that may be a key"


def _plain(run: str) -> str | None:
    """The text that base64 stands for; ``None`` where it stands for none."""
    run = run[: len(run) - 1] if len(run) % 4 == 1 else run
    try:
        content = base64.b64decode(run.translate(_URL_SAFE) + "=" * (-len(run) % 4), validate=True)
        text = content.replace(b"\0", b"").decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return text if text and all(c.isprintable() or c in "\n\r\t" for c in text) else None


_URL_SAFE = str.maketrans("-_", "+/")


def _is_random_run(run: str, match: re.Match[str]) -> bool:
    """Whether it is as random as a key: no name, no hash, no line of a longer text in base64."""
    if not 32 <= len(run) <= 128 or len(match[0]) in (64, 76):
        return False
    letters = re.sub(r"[^A-Za-z0-9]", "", run)
    mixed = any(c.isdigit() for c in run) and any(c.islower() for c in run) and any(c.isupper() for c in run)
    if not mixed or switches(letters) < 0.42 * len(letters) or len(set(run)) < 16:
        return False
    return not _NO_SECRET.search(match.string[max(0, match.start() - 200) : match.start()])
