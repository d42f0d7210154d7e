"""The judge's settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from sftkey.evaluation.judge.settings import PAPER_JUDGE, JudgeMode, JudgeSettings

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
        }
    )
    assert settings == JudgeSettings("https://judge.example/v1", "m", KEY, JudgeMode.ALWAYS, 7, tmp_path)


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
    ],
)  # fmt: skip
def test_a_bad_value_names_its_variable(variable: str, value: str) -> None:
    environ = {"SFTKEY_JUDGE_BASE_URL": "http://h/v1", f"SFTKEY_JUDGE_{variable}": value}
    with pytest.raises(ValueError, match=f"^SFTKEY_JUDGE_{variable}") as caught:
        JudgeSettings.from_environment(environ)
    assert "pw-1234" not in repr(caught.value)
