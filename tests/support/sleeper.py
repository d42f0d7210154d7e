"""What a bounded process of a test runs: it sleeps as long as it is told."""

from __future__ import annotations

import time
from typing import Any

from sftkey.util.bounded_worker import serve


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Sleep."""
    time.sleep(request["seconds"])
    return {"slept": request["seconds"]}


if __name__ == "__main__":
    serve(lambda: answer, seconds=10, memory=1 << 28)
