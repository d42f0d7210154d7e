"""The judge's settings from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sftkey.evaluation.judge.prompt import PromptTemplate
from sftkey.evaluation.judge.settings import PAPER_JUDGE, Fitness, JudgeMode, JudgeSettings

KEY = "sk-SECRET-9f8e7d6c5b4a"


def test_no_base_url_no_judge() -> None:
    assert JudgeSettings.from_environment({}) is None
    assert JudgeSettings.from_environment({"SFTKEY_JUDGE_BASE_URL": " ", "SFTKEY_JUDGE_MODE": "always"}) is None


def test_mode_off_no_judge() -> None:
    assert JudgeSettings.from_environment({"SFTKEY_JUDGE_BASE_URL": "http://h/v1", "SFTKEY_JUDGE_MODE": "off"}) is None


def test_settings_from_a_full_environment(tmp_path: Path) -> None:
    settings = JudgeSettings.from_environment(
        {
            "SFTKEY_JUDGE_BASE_URL": "https://judge.example/v1",
            "SFTKEY_JUDGE_MODEL": "m",
            "SFTKEY_JUDGE_API_KEY": f"{KEY}\n",
            "SFTKEY_JUDGE_MODE": "Always",
            "SFTKEY_JUDGE_CONCURRENCY": "7",
            "SFTKEY_JUDGE_CACHE": str(tmp_path),
            "SFTKEY_JUDGE_TIMEOUT": "9.5",
            "SFTKEY_JUDGE_MAX_TOKENS": "4096",
            "SFTKEY_JUDGE_TEMPERATURE": "None",
            "SFTKEY_JUDGE_EXTRA_BODY": '{"top_k": 1}',
            "SFTKEY_JUDGE_FITNESS": "Reported",
        }
    )
    assert settings == JudgeSettings(
        "https://judge.example/v1", "m", KEY, JudgeMode.ALWAYS, 7, tmp_path,
        timeout=9.5, max_tokens=4096, temperature=None, extra_body={"top_k": 1}, fitness=Fitness.REPORTED,
    )  # fmt: skip
    assert settings.parameters == {"max_tokens": 4096, "top_k": 1}


def test_a_prompt_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"{question}\r\nA: {answer1}\r\nB: {answer2}\r\n")
    settings = JudgeSettings.from_environment(
        {"SFTKEY_JUDGE_BASE_URL": "http://h/v1", "SFTKEY_JUDGE_PROMPT": str(path)}
    )
    assert settings is not None
    assert settings.prompt == PromptTemplate("{question}\nA: {answer1}\nB: {answer2}")
    default = JudgeSettings("http://h/v1")
    assert default.prompt.digest != settings.prompt.digest == settings.described["prompt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{question} {answer1}", "{answer2} 0 times"), (b"{question} {answer1} {answer2} {answer2}", "{answer2} 2 times"),
        (b"", "{question} 0 times"), (b"\xff{question}", "not UTF-8"), (b"x" * 20_001, "more than 20,000 bytes"),
        (None, "can't be read"),
    ],
)  # fmt: skip
def test_a_prompt_file_that_can_not_be_used_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    environ = {"SFTKEY_JUDGE_BASE_URL": "http://h/v1", "SFTKEY_JUDGE_PROMPT": str(path)}
    with pytest.raises(ValueError, match=f"^SFTKEY_JUDGE_PROMPT: {re.escape(str(path))}") as caught:
        JudgeSettings.from_environment(environ)
    assert message in str(caught.value)


def test_what_results_say_about_the_judge_holds_no_secret() -> None:
    settings = JudgeSettings("http://h/v1", "m", KEY, extra_body={"api_key": "sk-other-1234"})
    shown = repr(settings) + repr(settings.described)
    assert "SECRET" not in shown
    assert "sk-other" not in shown
    assert settings.described["extra_body"] != JudgeSettings("http://h/v1", extra_body={"a": 1}).described["extra_body"]


def test_settings_from_the_least_environment(tmp_path: Path) -> None:
    environ = {"SFTKEY_JUDGE_BASE_URL": "http://localhost:8000/v1", "XDG_CACHE_HOME": str(tmp_path)}
    settings = JudgeSettings.from_environment(environ)
    assert settings is not None
    assert (settings.model, settings.api_key, settings.mode) == (PAPER_JUDGE, None, JudgeMode.FALLBACK)
    assert (settings.concurrency, settings.cache_dir) == (32, tmp_path / "sftkey" / "judge")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODE", "sometimes"), ("CONCURRENCY", "0"), ("CONCURRENCY", "many"), ("CONCURRENCY", "-1"),
        ("CONCURRENCY", "9" * 5000),
        ("CONCURRENCY", "2.5"), ("BASE_URL", "localhost:8000"), ("BASE_URL", "ftp://h"), ("BASE_URL", "http://"),
        ("BASE_URL", "http://h:99999/v1"), ("BASE_URL", "http://user:pw-1234@h/v1"),
        ("BASE_URL", "https://h/v1?key=pw-1234"),
        ("BASE_URL", "http://[h/v1"), ("API_KEY", "two words pw-1234"), ("API_KEY", "pw-1234\u00e9"),
        ("API_KEY", "a\nb pw-1234"),
        ("MAX_TOKENS", "0"), ("MAX_TOKENS", "1e3"), ("MAX_TOKENS", "9" * 20), ("TEMPERATURE", "nan"), ("TEMPERATURE", "-1"),
        ("TEMPERATURE", "hot"), ("TIMEOUT", "0"), ("TIMEOUT", "nan"), ("EXTRA_BODY", "[]"), ("EXTRA_BODY", "{"),
        ("EXTRA_BODY", "[" * 100_000), ("EXTRA_BODY", '{"messages": []}'), ("EXTRA_BODY", '{"stream": true}'),
        ("PROMPT", "/nowhere/prompt.txt"), ("PROMPT", "/"), ("FITNESS", "maybe"),
    ],
)  # fmt: skip
def test_a_bad_value_names_its_variable(variable: str, value: str) -> None:
    environ = {"SFTKEY_JUDGE_BASE_URL": "http://h/v1", f"SFTKEY_JUDGE_{variable}": value}
    with pytest.raises(ValueError, match=f"^SFTKEY_JUDGE_{variable}") as caught:
        JudgeSettings.from_environment(environ)
    assert "pw-1234" not in repr(caught.value)
