"""A language model as the judge of answers that rules can't compare (section 3, appendix C.2).

The judge is any server with OpenAI's chat API. All items of a call are asked concurrently, each distinct one once, and
every verdict is on disk (`sftkey.evaluation.judge.cache`) before the next question is asked in its place. A judge that
fails never fails the evaluation: an item without a clear verdict is *unresolved*, which is neither yes nor no.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from sftkey.evaluation.judge.cache import CachedVerdict, JudgeCache, cache_key
from sftkey.util.text import shorten

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

PAPER_JUDGE = "meta-llama/Meta-Llama-3-70B-Instruct"
"""The judge of section 3, used where ``SFTKEY_JUDGE_MODEL`` is not set."""

MAX_ANSWER_CHARS = 4_000
"""A longer reference or prediction is not sent: a verdict on half an answer is none. The item is unresolved."""

MAX_QUESTION_CHARS = 12_000
"""Of a longer question, which is only context, the judge sees this many characters: its beginning and its end."""

PARAMETERS: dict[str, Any] = {"temperature": 0, "max_tokens": 64}
"""Sampling parameters of every request. 64 tokens hold yes or no and a sentence; what rambles on is cut."""

_MAX_DETAIL_CHARS = 300
_MAX_RETRY_AFTER = 120.0  # seconds; the client does not wait for longer than that between two attempts
_PLACEHOLDER_KEY = "EMPTY"  # what servers without authentication are sent: the client insists on a key
_HTTP_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")


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
        mode: Which items to ask about. `judge` itself asks about every item it is given.
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
        values = {
            name: value
            for name in ("BASE_URL", "MODEL", "API_KEY", "MODE", "CONCURRENCY", "CACHE")
            if (value := environ.get(f"SFTKEY_JUDGE_{name}", "").strip())
        }
        if "BASE_URL" not in values:
            return None
        mode = values.get("MODE", JudgeMode.FALLBACK.value).lower()
        if mode not in set(JudgeMode):
            raise ValueError(f"SFTKEY_JUDGE_MODE is {mode!r}, not one of {', '.join(JudgeMode)}")
        if mode == JudgeMode.OFF:
            return None
        known: dict[str, Any] = {"mode": JudgeMode(mode), "cache_dir": default_cache_dir(environ)}
        for name, argument, convert in (
            ("BASE_URL", "base_url", str),
            ("MODEL", "model", str),
            ("API_KEY", "api_key", str),
            ("CONCURRENCY", "concurrency", int),
            ("CACHE", "cache_dir", lambda path: Path(path).expanduser()),
        ):
            if name not in values:
                continue
            try:
                known[argument] = convert(values[name])
                settings = cls(**known)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"SFTKEY_JUDGE_{name}: {error}") from None
        return settings


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The verdict cache of a user: ``$XDG_CACHE_HOME/sftkey/judge``, by default in ``~/.cache``."""
    root = environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sftkey" / "judge"


@dataclass(frozen=True)
class JudgeItem:
    """One comparison for the judge.

    Attributes:
        question: The question that both answers answer.
        reference: The reference answer; ``{answer1}`` of the prompt (C.2).
        prediction: The answer extracted from the model's output; ``{answer2}``.
    """

    question: str
    reference: str
    prediction: str


@dataclass(frozen=True)
class JudgeVerdict:
    """What the judge says about one item.

    Attributes:
        same: Whether the two answers are the same; ``None`` where that is unresolved.
        source: ``judge`` for a verdict given now, ``cache`` for an earlier one, ``unresolved`` for none.
        detail: The judge's reply, or the reason why there is no verdict (a short phrase, a colon, more).
    """

    same: bool | None
    source: Literal["judge", "cache", "unresolved"]
    detail: str


class TooLong(ValueError):
    """An answer is too long for the judge's prompt."""


def judge(items: Sequence[JudgeItem], settings: JudgeSettings, *, progress: bool = True) -> list[JudgeVerdict]:
    """Ask the judge about every item, concurrently, whatever ``settings.mode`` is.

    Blocks until each item has a verdict or is unresolved; works in any thread and inside a running event loop. Items
    with the same three texts are asked once. A failing server costs at most
    ``(max_retries + 1) * timeout + max_retries * 120`` seconds per request, and is given up (the items left are
    unresolved) when as many items in a row as twice the concurrency, at least 64, have failed.

    Args:
        items: The comparisons.
        settings: Where the judge is and how it is asked.
        progress: Show a progress bar on standard error.

    Returns:
        One verdict per item, in the order of ``items``.

    Raises:
        KeyboardInterrupt: Interrupted; the verdicts that had arrived are in the cache.
    """
    prompts: list[str] = []
    verdicts: dict[str, JudgeVerdict] = {}
    for item in items:
        try:
            prompts.append(judge_prompt(item))
        except TooLong as error:
            # The message names sizes only, so that it can stand for all items with these sizes.
            prompts.append(str(error))
            verdicts[str(error)] = JudgeVerdict(None, "unresolved", f"too long: {error}")
    questions = [prompt for prompt in dict.fromkeys(prompts) if prompt not in verdicts]
    if questions:
        with _quiet_http_logs(), JudgeCache(settings.cache_dir) as verdict_cache:
            panel = _Panel(settings, verdict_cache, progress)
            verdicts |= _run(panel.ask_all(questions))
    result = [verdicts[prompt] for prompt in prompts]
    _report(result, settings)
    return result


def in_cache(items: Sequence[JudgeItem], settings: JudgeSettings) -> list[bool]:
    """For each item whether `judge` would take its verdict from the cache. Asks and writes nothing."""
    if not settings.cache_dir.is_dir():
        return [False] * len(items)
    found = []
    with JudgeCache(settings.cache_dir) as verdict_cache:
        for item in items:
            try:
                key = cache_key(judge_prompt(item), settings.model, PARAMETERS)
            except TooLong:
                found.append(False)
            else:
                found.append(verdict_cache.get(key) is not None)
    return found


def judge_prompt(item: JudgeItem) -> str:
    """Fill in the paper's evaluation prompt (C.2): the reference is Response 1, the prediction Response 2.

    Braces in the three texts stay as they are. A lone surrogate, which no server can be sent, becomes ``?``.

    Args:
        item: The comparison.

    Returns:
        The text of the one user message.

    Raises:
        TooLong: Reference or prediction has more than `MAX_ANSWER_CHARS` characters.
    """
    for name, text in (("reference", item.reference), ("prediction", item.prediction)):
        if len(text) > MAX_ANSWER_CHARS:
            raise TooLong(f"the {name} has {len(text):,} characters, more than {MAX_ANSWER_CHARS:,}")
    values = {
        "question": shorten(item.question, MAX_QUESTION_CHARS),
        "answer1": item.reference,
        "answer2": item.prediction,
    }
    # One pass over the template: what is filled in is not looked at again.
    text = re.sub(r"\{(question|answer1|answer2)\}", lambda match: values[match.group(1)], prompt_template())
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def prompt_template() -> str:
    """The paper's evaluation prompt, verbatim with its line breaks (appendix C.2)."""
    text = resources.files(__package__).joinpath("judge_prompt.txt").read_text(encoding="utf-8")
    return text.removesuffix("\n")


_VERDICT = re.compile(r"[\W_]*(yes|no)(?![^\W_])(.*)", re.I | re.S)
_WORD = re.compile(r"[^\W_]")
_SAME_PHRASE = re.compile(r"[^\S\n]+[^\W_]")
_SUBJECT = re.compile(r"\s+(?:they|the|both|these|those|it|because|since|yes|no)\b", re.I)
_NEGATION = re.compile(r"\b(?:not|neither|nor|never|cannot)\b|n['’]t\b", re.I)
_SAMENESS = re.compile(r"\b(?:same|identical|equivalent|equals?|match(?:es|ing)?|agrees?|correct|right)\b", re.I)
_DIFFERENCE = re.compile(r"\b(?:differ\w*|unequal|distinct|mismatch\w*|wrong|incorrect)\b", re.I)
_HEDGE = re.compile(
    r"\b(?:but|however|although|though|unless|except|maybe|perhaps|possibly|probably|might|or|depends|unclear|unsure"
    r"|uncertain|sure|certain|determine|tell|decide|unable|insufficient|impossible|partly|partially|almost)\b",
    re.I,
)


def read_verdict(reply: str) -> bool | None:
    """Read yes or no from a judge's reply, strictly.

    The reply has to begin with the word yes or no; case, quotes, markup and punctuation don't matter. What follows the
    word may be nothing, or a statement that agrees with it: set off by punctuation, or beginning like "they are". A
    statement with the other word, with a hedge ("but", "probably", "can't tell"), or that says the contrary ("Yes,
    they are different", "No, they are the same") makes the reply unreadable.

    Args:
        reply: The text of the judge's message.

    Returns:
        ``True`` for yes, ``False`` for no, ``None`` for a reply that is neither.
    """
    match = _VERDICT.match(reply[:2_000])
    if match is None:
        return None
    same = match.group(1).lower() == "yes"
    rest = match.group(2)
    if not _WORD.search(rest):
        return same
    if _SAME_PHRASE.match(rest) and not _SUBJECT.match(rest):
        return None  # "No idea", "yes man": another phrase that happens to begin with the word
    if _HEDGE.search(rest) or re.search(r"\bno\b" if same else r"\byes\b", rest, re.I):
        return None
    negated, different = _NEGATION.search(rest), _DIFFERENCE.search(rest)
    if same and (negated or different):
        return None
    if not same and _SAMENESS.search(rest) and not negated and not different:
        return None
    return same


class _ServerFailure(Exception):
    """A request failed after the client's own retries. The message can be shown."""


class _Panel:
    """Asks the questions of one call."""

    def __init__(self, settings: JudgeSettings, verdict_cache: JudgeCache, progress: bool) -> None:
        self._settings, self._cache, self._progress = settings, verdict_cache, progress
        self._failures_in_a_row = 0
        self._failures_to_give_up = max(2 * settings.concurrency, 64)
        retries = settings.max_retries
        # The client's timeout starts anew with every byte that arrives, so the whole is bounded too.
        self._deadline = (retries + 1) * settings.timeout + retries * _MAX_RETRY_AFTER

    async def ask_all(self, prompts: Sequence[str]) -> dict[str, JudgeVerdict]:
        """Ask each of the distinct prompts; the result has all of them as keys."""
        from openai import AsyncOpenAI
        from tqdm import tqdm

        settings = self._settings
        verdicts: dict[str, JudgeVerdict] = {}
        waiting = iter(prompts)
        # A key is always given: without one the client would take OPENAI_API_KEY, which is for another server.
        client = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or _PLACEHOLDER_KEY,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
        )
        client.organization = client.project = None  # likewise from OPENAI_ORG_ID and OPENAI_PROJECT_ID

        async with client:
            with tqdm(total=len(prompts), desc="judge", unit="item", disable=not self._progress) as bar:

                async def work() -> None:
                    for prompt in waiting:
                        verdicts[prompt] = await self._ask(client, prompt)
                        bar.update()

                async with asyncio.TaskGroup() as group:
                    for _ in range(min(settings.concurrency, len(prompts))):
                        group.create_task(work())
        return verdicts

    async def _ask(self, client: openai.AsyncOpenAI, prompt: str) -> JudgeVerdict:
        key = cache_key(prompt, self._settings.model, PARAMETERS)
        known = self._cache.get(key)
        if known is not None:
            return JudgeVerdict(known.same, "cache", known.reply)
        if self._failures_in_a_row >= self._failures_to_give_up:
            return self._unresolved("not asked", f"{self._failures_to_give_up} items in a row had failed")
        reply = ""
        for _ in range(2):  # any reply but yes or no is asked once more
            try:
                reply = await self._reply(client, prompt)
            except _ServerFailure as error:
                self._failures_in_a_row += 1
                return self._unresolved(*error.args)
            self._failures_in_a_row = 0
            same = read_verdict(reply)
            if same is not None:
                shown = self._clean(reply.strip())
                self._cache.put(key, CachedVerdict(same, shown))
                return JudgeVerdict(same, "judge", shown)
        return self._unresolved("neither yes nor no", f"asked twice, last reply {reply!r}")

    async def _reply(self, client: openai.AsyncOpenAI, prompt: str) -> str:
        """The text of the judge's message; what is no chat completion reads as an unusable reply."""
        import openai

        try:
            async with asyncio.timeout(self._deadline):
                completion = await client.chat.completions.create(
                    model=self._settings.model, messages=[{"role": "user", "content": prompt}], **PARAMETERS
                )
        except (openai.APITimeoutError, TimeoutError):
            raise _ServerFailure("timeout", f"no reply within {self._settings.timeout:g} s per attempt") from None
        except openai.APIStatusError as error:
            raise _ServerFailure(f"status {error.status_code}", error.message) from None
        except openai.APIConnectionError as error:
            raise _ServerFailure("no connection", f"{error.message} {error.__cause__ or ''}") from None
        except Exception as error:  # a body that the client can't parse raises whatever its parser raises
            return f"({type(error).__name__}: {error})"
        try:
            content = completion.choices[0].message.content
        except (AttributeError, IndexError, KeyError, TypeError):
            return "(the response is no chat completion)"
        return content if isinstance(content, str) else "(the message has no text)"

    def _unresolved(self, reason: str, more: str) -> JudgeVerdict:
        return JudgeVerdict(None, "unresolved", self._clean(f"{reason}: {more.strip()}"))

    def _clean(self, text: str) -> str:
        """Cut the API key out of a text from the server, then shorten it (in this order: a part of a key is a leak)."""
        key = self._settings.api_key
        if key is not None:
            for form in {key, json.dumps(key)[1:-1], repr(key)[1:-1], quote(key, safe="")}:
                text = text.replace(form, "[API key]")
        return shorten(text, _MAX_DETAIL_CHARS)


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


@contextmanager
def _quiet_http_logs() -> Iterator[None]:
    """Silence the HTTP client below warnings: a line per request, and headers, which a server may echo the key in."""
    loggers = [logging.getLogger(name) for name in _HTTP_LOGGERS]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(max(one.level, logging.WARNING))
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _run(main: Coroutine[Any, Any, dict[str, JudgeVerdict]]) -> dict[str, JudgeVerdict]:
    """`asyncio.run`, also where an event loop is already running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)

    outcome: dict[str, JudgeVerdict] = {}
    failure: list[BaseException] = []
    interrupted = threading.Event()

    async def supervised() -> None:
        asking = asyncio.ensure_future(main)
        while not asking.done() and not interrupted.is_set():
            await asyncio.wait([asking], timeout=0.1)
        if interrupted.is_set():
            asking.cancel()
        outcome.update(await asking)

    def target() -> None:
        try:
            asyncio.run(supervised())
        except BaseException as error:
            failure.append(error)

    # Ctrl-C reaches the thread that waits here: as an exception, or as a request to cancel its task.
    waiting = asyncio.current_task()
    thread = threading.Thread(target=target, name="sftkey-judge", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            if waiting is not None and waiting.cancelling():
                raise asyncio.CancelledError
    except BaseException:
        interrupted.set()
        thread.join()
        raise
    if failure:
        raise failure[0]
    return outcome


def _report(verdicts: Sequence[JudgeVerdict], settings: JudgeSettings) -> None:
    sources = Counter(verdict.source for verdict in verdicts)
    logger.info(
        "judge %s: %d verdicts, %d from the cache, %d unresolved",
        settings.model,
        sources["judge"],
        sources["cache"],
        sources["unresolved"],
    )
    if not sources["unresolved"]:
        return
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.source == "unresolved":
            reason, _, example = verdict.detail.partition(": ")
            reasons[reason] += 1
            examples.setdefault(reason, example)
    logger.warning(
        "judge %s at %s: %d of %d items are unresolved, the rules' verdict stands for them: %s. They are asked again "
        "by `axolotl sftkey judge RESULTS_DIR`",
        settings.model,
        settings.base_url,
        sources["unresolved"],
        len(verdicts),
        "; ".join(f"{count} x {reason} (for example: {examples[reason]})" for reason, count in reasons.most_common()),
    )
