"""One question to a server with OpenAI's chat API: asked as the server takes it, the reply bounded in bytes.

Servers differ in what they refuse: newer hosted models take ``max_completion_tokens`` in place of ``max_tokens``, and no
temperature. What a server refuses with status 400 or 422 is left out, or renamed, from then on.
"""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sftkey.evaluation.judge.settings import JudgeSettings
from sftkey.util.extras import extra

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

_MAX_RETRY_AFTER = 120.0  # seconds; the client does not wait for longer than that between two attempts
_PLACEHOLDER_KEY = "EMPTY"  # what servers without authentication are sent: the client insists on a key

# A message that names a parameter because the prompt and the reply don't fit is about the prompt.
_TOO_LARGE = re.compile(r"context|too (?:large|long|many)|at most|exceed|maximum", re.I)

_REFUSED: dict[tuple[str, str], set[str]] = {}
"""What servers have refused so far in this process, by address and model."""


class ServerFailure(Exception):
    """A request failed after the client's own retries. The arguments, a reason and more, can be shown."""


class ReplyTooLarge(BaseException):
    """A reply exceeds its bound. Not an `Exception`, which the client takes for a lost connection and asks again."""


class Server:
    """The judge's server. An asynchronous context manager."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Open no connection yet."""
        with extra("eval"):
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._settings = settings
        self._refused = _REFUSED.setdefault((settings.base_url, settings.model), set())
        retries = settings.max_retries
        # The client's timeout starts anew with every byte that arrives, so the whole is bounded too.
        self._deadline = (retries + 1) * settings.timeout + retries * _MAX_RETRY_AFTER
        # A token is a few characters, each of which can be six in JSON.
        self._max_bytes = 65_536 + 64 * settings.max_tokens
        # A key is always given: without one the client would take OPENAI_API_KEY, which is for another server.
        self._client = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or _PLACEHOLDER_KEY,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            default_headers={"Accept-Encoding": "gzip, deflate"},  # those that can be unpacked a piece at a time
            http_client=DefaultAsyncHttpxClient(event_hooks={"response": [self._bound]}),
        )
        self._client.organization = self._client.project = None  # likewise OPENAI_ORG_ID and OPENAI_PROJECT_ID

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()

    async def reply(self, prompt: str) -> str:
        """The text of the judge's message; what is no chat completion reads as an unusable reply.

        Raises:
            ServerFailure: There is no reply.
        """
        with extra("eval"):
            import openai

        try:
            async with asyncio.timeout(self._deadline):
                while True:
                    sent = self._parameters()
                    try:
                        return text_of(await self._create(prompt, sent))
                    except openai.APIStatusError as error:
                        if error.status_code not in (400, 422) or not self._refuses(sent, error):
                            raise
        except (openai.APITimeoutError, TimeoutError):
            raise ServerFailure("timeout", f"no reply within {self._settings.timeout:g} s per attempt") from None
        except openai.APIStatusError as error:
            raise ServerFailure(f"status {error.status_code}", error.message) from None
        except openai.APIConnectionError as error:
            raise ServerFailure("no connection", f"{error.message} {error.__cause__ or ''}") from None
        except ReplyTooLarge:
            raise ServerFailure("reply too large", f"more than {self._max_bytes:,} bytes") from None
        except Exception as error:  # a body that the client can't parse raises whatever its parser raises
            return f"({type(error).__name__}: {error})"

    async def _create(self, prompt: str, parameters: dict[str, Any]) -> openai.types.chat.ChatCompletion:
        return await self._client.chat.completions.create(
            model=self._settings.model,
            messages=[{"role": "user", "content": prompt}],
            extra_body=self._settings.extra_body or None,
            **parameters,
        )

    def _parameters(self) -> dict[str, Any]:
        """Token limit and temperature as far as the server takes them."""
        limits = [name for name in ("max_tokens", "max_completion_tokens") if name not in self._refused]
        parameters: dict[str, Any] = dict.fromkeys(limits[:1], self._settings.max_tokens)
        if self._settings.temperature is not None and "temperature" not in self._refused:
            parameters["temperature"] = self._settings.temperature
        return parameters

    def _refuses(self, sent: dict[str, Any], error: openai.APIStatusError) -> bool:
        """Whether an error is about a parameter, which is then not sent again."""
        named = error.param if isinstance(error.param, str) else ""
        for name in sent:
            in_message = re.search(rf"(?<!\w){name}(?!\w)", error.message)
            if (name == named or in_message) and not (name != "temperature" and _TOO_LARGE.search(error.message)):
                if name not in self._refused:
                    self._refused.add(name)
                    logger.warning(
                        "the judge's server refuses %s (status %d): asked without it from here on",
                        name,
                        error.status_code,
                    )
                return True
        return False

    async def _bound(self, response: Any) -> None:
        """The client's hook for a response whose body has not been read: it will be read piece by piece, up to the bound."""
        response.aiter_bytes = partial(_bounded, response, self._max_bytes)


async def _bounded(response: Any, limit: int) -> AsyncIterator[bytes]:
    """The decoded body of a response; unpacked only as far as the bound."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise ReplyTooLarge(f"encoded as {encoding}, which was not asked for")
    unpack = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47 if encoding != "deflate" else 15)
    left = limit
    async for packed in response.aiter_raw():
        part = packed if unpack is None else unpack.decompress(packed, left + 1)
        left -= len(part)
        if left < 0:
            raise ReplyTooLarge
        yield part


def text_of(completion: Any) -> str:
    """The text of a chat completion's message.

    What a judge thinks may stand beside it (``reasoning_content``, or ``reasoning``). Where there is nothing else, though
    the judge had ended, a server took the whole reply for thinking, and it is read in place of it.
    """
    try:
        choice = completion.choices[0]
        content = choice.message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return "(the response is no chat completion)"
    if isinstance(content, list):  # parts, of which some are thinking
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict) and _is_text(part))
    if isinstance(content, str) and content.strip():
        return content
    for name in ("reasoning_content", "reasoning"):
        thought = getattr(choice.message, name, None)
        if isinstance(thought, str) and thought.strip():
            ended = getattr(choice, "finish_reason", None) == "stop"
            return thought if ended else "(cut off while thinking; raise SFTKEY_JUDGE_MAX_TOKENS)"
    return content if isinstance(content, str) else "(the message has no text)"


def _is_text(part: dict[str, Any]) -> bool:
    return part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str)
