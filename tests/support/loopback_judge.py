"""An OpenAI-compatible chat server on the loopback interface, with faults on demand.

Real HTTP through a real socket, so that what is tested is the client that users run. It serves as the judge, and as the
model of `lm_eval --model local-chat-completions`: what it replies is a function of the prompt.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_JUDGED = re.compile(
    r"\*\*Question\*\*:\n(.*)\n\*\*Response 1\*\*:\n(.*)\n\n\*\*Response 2\*\*:\n(.*)\n\nPlease make", re.S
)


class Fault(StrEnum):
    """What the server does instead of answering."""

    SERVER_ERROR = "500"
    RATE_LIMITED = "429 with Retry-After"
    UNAUTHORIZED = "401 that echoes the Authorization header"
    HANG = "accepts the request and never answers"
    DRIP = "sends a byte at a time, for ever"
    CLOSE = "closes the connection without a reply"
    RESET = "resets the connection in the middle of the body"
    GARBAGE = "200 with a body that is not JSON"
    WRONG_SHAPE = "200 with JSON that is no chat completion"
    EMPTY_BODY = "200 with no body"
    EMPTY = "a chat completion with an empty message"
    NO_CHOICES = "a chat completion without choices"
    RAMBLE = "a chat completion that is neither yes nor no"


TRANSIENT = (Fault.SERVER_ERROR, Fault.RATE_LIMITED, Fault.HANG, Fault.CLOSE, Fault.RESET)
"""What the client retries by itself."""

UNREADABLE = (
    Fault.GARBAGE,
    Fault.WRONG_SHAPE,
    Fault.EMPTY_BODY,
    Fault.EMPTY,
    Fault.NO_CHOICES,
    Fault.RAMBLE,
)
"""Replies that the client accepts and that hold no verdict."""


@dataclass(frozen=True)
class Request:
    """One request as the server received it.

    Attributes:
        prompt: Content of the last message.
        body: The JSON body.
        headers: The request's headers, names in lower case.
        attempt: How often this prompt had been asked before; from 0.
        fault: What the server did instead of answering.
    """

    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]
    attempt: int
    fault: Fault | None

    @property
    def authorization(self) -> str:
        """The ``Authorization`` header."""
        return self.headers.get("authorization", "")


def read_judge_prompt(prompt: str) -> tuple[str, str, str]:
    """Take question, first response and second response out of a judge prompt (C.2)."""
    match = _JUDGED.search(prompt)
    if match is None:
        raise ValueError(f"not a judge prompt: {prompt[:200]!r}")
    return match.group(1), match.group(2), match.group(3)


def random_faults(seed: int, rate: float, kinds: tuple[Fault, ...]) -> Callable[[str, int], Fault | None]:
    """Faults at random, but the same ones for the same seed in whatever order the requests arrive."""

    def fault(prompt: str, attempt: int) -> Fault | None:
        digest = hashlib.sha256(f"{seed} {attempt} {prompt}".encode()).digest()
        if int.from_bytes(digest[:4], "big") / 2**32 >= rate:
            return None
        return kinds[digest[4] % len(kinds)]

    return fault


def chat_message(finish_reason: str = "stop", **message: Any) -> tuple[int, bytes, dict[str, str]]:
    """A chat completion with any message, for `LoopbackServer`'s ``respond``."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return 200, json.dumps(body).encode(), {}


class LoopbackServer:
    """A chat server in a thread of this process; use it as a context manager.

    Args:
        reply: Prompt (content of the last message) -> text of the assistant's message.
        faults: Prompt and attempt (from 0, per prompt) -> fault, or ``None`` to answer.
        delay: Seconds that every answer takes.
        retry_after: Seconds in the ``Retry-After`` header of a 429.
        hang: Seconds after which a hanging connection is given up by the server.
        model: Model name to serve; any other is a 404. ``None`` serves all.
        respond: A request -> status, body and headers to send in place of all that, or ``None``.
    """

    def __init__(
        self,
        reply: Callable[[str], str],
        *,
        faults: Callable[[str, int], Fault | None] = lambda prompt, attempt: None,
        delay: float = 0.0,
        retry_after: float = 0.05,
        hang: float = 30.0,
        model: str | None = None,
        respond: Callable[[Request], tuple[int, bytes, dict[str, str]] | None] = lambda request: None,
    ) -> None:
        self._reply, self._faults = reply, faults
        self._delay, self._retry_after, self._hang, self._model = delay, retry_after, hang, model
        self._respond = respond
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._attempts: dict[str, int] = {}
        self._open = 0
        self.peak_concurrency = 0
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        """What ``SFTKEY_JUDGE_BASE_URL`` is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def prompts(self) -> list[str]:
        """The prompts received so far, in order, repeats included."""
        with self._lock:
            return [request.prompt for request in self.requests]

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _receive(self, body: dict[str, Any], headers: dict[str, str]) -> Request:
        prompt = body["messages"][-1]["content"]
        if isinstance(prompt, list):
            prompt = "".join(part.get("text", "") for part in prompt)
        with self._lock:
            attempt = self._attempts.get(prompt, 0)
            self._attempts[prompt] = attempt + 1
            request = Request(prompt, body, headers, attempt, self._faults(prompt, attempt))
            self.requests.append(request)
        return request

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one packet: sent apart, the body would wait 40 ms for the client's delayed ACK.
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": [{"id": outer._model or "loopback", "object": "model"}]})

            def do_POST(self) -> None:
                with outer._lock:
                    outer._open += 1
                    outer.peak_concurrency = max(outer.peak_concurrency, outer._open)
                try:
                    with suppress(OSError):  # the client may have gone: it timed out or was interrupted
                        self._answer()
                finally:
                    with outer._lock:
                        outer._open -= 1

            def _answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = outer._receive(body, {name.lower(): value for name, value in self.headers.items()})
                instead = outer._respond(request)
                if instead is not None:
                    self._send_bytes(*instead)
                elif outer._model is not None and body.get("model") != outer._model:
                    self._send(404, {"error": {"message": f"The model {body.get('model')!r} does not exist."}})
                elif request.fault is not None:
                    self._fail(request.fault, request.authorization)
                else:
                    outer._stopped.wait(outer._delay)
                    self._send_message(outer._reply(request.prompt))

            def _fail(self, fault: Fault, authorization: str) -> None:
                if fault is Fault.SERVER_ERROR:
                    self._send(500, {"error": {"message": f"internal error; Authorization was {authorization}"}})
                elif fault is Fault.RATE_LIMITED:
                    self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": f"{outer._retry_after:g}"})
                elif fault is Fault.UNAUTHORIZED:
                    self._send(401, {"error": {"message": f"bad key: {authorization}"}}, {"X-Seen": authorization})
                elif fault is Fault.HANG:
                    outer._stopped.wait(outer._hang)
                    self.close_connection = True
                elif fault is Fault.DRIP:
                    self._start(200, 10_000_000)
                    until = time.monotonic() + outer._hang
                    while time.monotonic() < until and not outer._stopped.wait(0.02):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                elif fault is Fault.CLOSE:
                    self.close_connection = True
                elif fault is Fault.RESET:
                    self._start(200, 1000)
                    self.wfile.write(b'{"id": ')
                    self.wfile.flush()
                    # Zero linger: the close below is an RST, not a FIN.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                elif fault is Fault.GARBAGE:
                    self._send_bytes(200, b"\xff\xfe<html>Bad gateway?</html>")
                elif fault is Fault.WRONG_SHAPE:
                    self._send(200, {"choices": {"0": ["yes"]}, "message": 7})
                elif fault is Fault.EMPTY_BODY:
                    self._send_bytes(200, b"")
                elif fault is Fault.EMPTY:
                    self._send_message("")
                elif fault is Fault.NO_CHOICES:
                    self._send(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []})
                elif fault is Fault.RAMBLE:
                    self._send_message(f"It depends on what you mean by the same. {authorization}")

            def _send_message(self, text: str) -> None:
                message = {"role": "assistant", "content": text}
                self._send(
                    200,
                    {
                        "id": "chatcmpl-loopback",
                        "object": "chat.completion",
                        "created": 0,
                        "model": outer._model or "loopback",
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                    },
                )

            def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
                self._send_bytes(status, json.dumps(body).encode(), headers)

            def _send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self._start(status, len(body), headers)
                self.wfile.write(body)

            def _start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(length))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a connection kept alive by a client must not hold up the test
    request_queue_size = 256
