"""What a bounded process of a test runs: it sleeps, or is busy in one call that Python can't interrupt."""

from __future__ import annotations

import time
from typing import Any

from sftkey.util.bounded_worker import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Sleep, or work."""
    sum(range(request.get("numbers", 0)))
    time.sleep(request["seconds"])
    return {"slept": request["seconds"]}


if __name__ == "__main__":
    serve(lambda: answer, seconds=0.5, memory=1 << 28)
