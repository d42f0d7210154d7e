"""Ask a language model whether two answers are the same (section 3, appendix C.2).

The judge is any server with OpenAI's chat API. All items of a call are asked concurrently, each distinct one once, and
every verdict is on disk (`sftkey.evaluation.judge.cache`) before the next question is asked in its place. A judge that
fails never fails the evaluation: an item without a clear verdict is *unresolved*, which is neither yes nor no.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar
from urllib.parse import quote

from sftkey.evaluation.judge.cache import CachedVerdict, JudgeCache, cache_key
from sftkey.evaluation.judge.prompt import JudgeItem, TooLong, judge_prompt
from sftkey.evaluation.judge.reply import read_verdict
from sftkey.evaluation.judge.server import Server, ServerFailure
from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.util.extras import extra
from sftkey.util.text import encodable, shorten

logger = logging.getLogger(__name__)

NO_VERDICT = "neither yes nor no"
"""What the detail of an item begins with whose replies hold no verdict."""

_MAX_DETAIL_CHARS = 300
_HTTP_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")

_T = TypeVar("_T")


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


def judge(
    items: Sequence[JudgeItem], settings: JudgeSettings, *, progress: bool = True, report: bool = True
) -> list[JudgeVerdict]:
    """Ask the judge about every item, concurrently, whatever ``settings.mode`` is.

    Blocks until each item has a verdict or is unresolved; works in any thread and inside a running event loop. Items
    with the same three texts are asked once. A failing server costs at most
    ``(max_retries + 1) * timeout + max_retries * 120`` seconds per request, and is given up (the items left are
    unresolved) when as many items in a row as twice the concurrency, at least 64, have failed.

    Args:
        items: The comparisons.
        settings: Where the judge is and how it is asked.
        progress: Show a progress bar on standard error.
        report: Log how many verdicts there are, and why others are missing.

    Returns:
        One verdict per item, in the order of ``items``.

    Raises:
        KeyboardInterrupt: Interrupted; the verdicts that had arrived are in the cache.
    """
    prompts: list[str] = []
    verdicts: dict[str, JudgeVerdict] = {}
    for item in items:
        try:
            prompts.append(judge_prompt(item, settings.prompt))
        except TooLong as error:
            # The message names sizes only, so that it can stand for all items with these sizes.
            prompts.append(str(error))
            verdicts[str(error)] = JudgeVerdict(None, "unresolved", f"too long: {error}")
    questions = [prompt for prompt in dict.fromkeys(prompts) if prompt not in verdicts]
    if questions:
        with _quiet_http_logs(), JudgeCache(settings.cache_dir) as verdict_cache:
            asker = _Asker(settings, verdict_cache, progress)
            verdicts |= _run(partial(asker.ask_all, questions))
    result = [verdicts[prompt] for prompt in prompts]
    if report:
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
                key = cache_key(judge_prompt(item, settings.prompt), settings.model, settings.parameters)
            except TooLong:
                found.append(False)
            else:
                found.append(verdict_cache.get(key) is not None)
    return found


class _Asker:
    """Asks the questions of one call."""

    def __init__(self, settings: JudgeSettings, verdict_cache: JudgeCache, progress: bool) -> None:
        self._settings, self._cache, self._progress = settings, verdict_cache, progress
        self._failures_in_a_row = 0
        self._failures_to_give_up = max(2 * settings.concurrency, 64)

    async def ask_all(self, prompts: Sequence[str]) -> dict[str, JudgeVerdict]:
        """Ask each of the distinct prompts; the result has all of them as keys."""
        from tqdm import tqdm

        settings = self._settings
        verdicts: dict[str, JudgeVerdict] = {}
        waiting = iter(prompts)
        with tqdm(total=len(prompts), desc="judge", unit="item", disable=not self._progress) as bar:

            async def work() -> None:
                for prompt in waiting:
                    verdicts[prompt] = await self._ask(server, prompt)
                    bar.update()

            async with Server(settings) as server, asyncio.TaskGroup() as group:
                for _ in range(min(settings.concurrency, len(prompts))):
                    group.create_task(work())
        return verdicts

    async def _ask(self, server: Server, prompt: str) -> JudgeVerdict:
        key = cache_key(prompt, self._settings.model, self._settings.parameters)
        known = self._cache.get(key)
        if known is not None:
            return JudgeVerdict(known.same, "cache", known.reply)
        if self._failures_in_a_row >= self._failures_to_give_up:
            return self._unresolved("not asked", f"{self._failures_to_give_up} items in a row had failed")
        reply = ""
        for _ in range(2):  # any reply but yes or no is asked once more
            try:
                reply = await server.reply(prompt)
            except ServerFailure as error:
                self._failures_in_a_row += 1
                return self._unresolved(*error.args)
            self._failures_in_a_row = 0
            same = read_verdict(reply)
            if same is not None:
                shown = self._clean(reply.strip())
                self._cache.put(key, CachedVerdict(same, shown))
                return JudgeVerdict(same, "judge", shown)
        return self._unresolved(NO_VERDICT, f"asked twice, last reply {reply!r}")

    def _unresolved(self, reason: str, more: str) -> JudgeVerdict:
        return JudgeVerdict(None, "unresolved", self._clean(f"{reason}: {more.strip()}"))

    def _clean(self, text: str) -> str:
        """Cut the API key out of a text from the server, then shorten it (in this order: a part of a key is a leak).

        Lone surrogates go too: a file of samples can't hold them.
        """
        key = self._settings.api_key
        if key is not None:
            for form in {key, json.dumps(key)[1:-1], repr(key)[1:-1], quote(key, safe="")}:
                text = text.replace(form, "[API key]")
        return shorten(encodable(text), _MAX_DETAIL_CHARS)


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


def _run(ask_all: Callable[[], Awaitable[_T]]) -> _T:
    """Run a coroutine function in a thread of its own: the caller's may have an event loop already.

    Ctrl-C reaches the caller's thread, as an exception or as a request to cancel its task, and cancels what runs.
    """
    with extra("eval"):
        from anyio.from_thread import start_blocking_portal

    try:
        waiting = asyncio.current_task()
    except RuntimeError:  # no event loop here
        waiting = None
    with start_blocking_portal() as portal:
        asking = portal.start_task_soon(ask_all)
        while not wait([asking], timeout=0.1).done:
            if waiting is not None and waiting.cancelling():
                raise asyncio.CancelledError
        return asking.result()


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
    examples: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.source == "unresolved":
            reason, _, example = verdict.detail.partition(": ")
            examples.setdefault(reason, []).append(example)
    by_count = sorted(examples.items(), key=lambda one: -len(one[1]))
    logger.warning(
        "judge %s at %s: %d of %d items are unresolved, the rules' verdict stands for them: %s. They are asked again "
        "by `sftkey judge RESULTS_DIR`",
        settings.model,
        settings.base_url,
        sources["unresolved"],
        len(verdicts),
        "; ".join(f"{len(found)} x {reason} (for example: {found[0]})" for reason, found in by_count),
    )
