"""The formats of a response that have a name."""

from __future__ import annotations

from sftkey.format.response_format import ResponseFormat

THINKING_ANSWER = ResponseFormat("thinking_answer", "<Thinking>", "</Thinking>", "<Answer>", "</Answer>")
"""The paper's: ``<Thinking>{thinking}</Thinking><Answer>{answer}</Answer>`` (Eq. 2, appendix D)."""
