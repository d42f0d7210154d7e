"""What looks like a secret is found by line, and nothing of a normal recipe is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.stages.secrets import MAX_LINE, find_secrets

# Put together here, so that no scanner takes this file for a leak.
SECRETS = [
    "hf_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z",
    "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0",
    "sk-" + "ant-api03-a1B2c3D4e5F6g7H8i9J0",
    "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2",
    "github_pat_" + "a1B2c3D4e5F6g7H8i9J0k1L2",
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "xoxb-" + "1234567890-abcdef",
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "-----BEGIN " + "PRIVATE KEY-----",
    "postgres://" + "me:pass@host/db",
    "https://:" + "pass@host/x",
    "https://host/x?" + "access_token=abcdefgh1234",
    "Authorization: Bearer " + "abcdefghijklmnop1234",
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0.abcdefghijk",
    "api_key: " + "hunter22",
    "OPENAI_API_KEY=" + "hunter22",
    '"password": ' + '"hunter22"',
    "hub_token: " + "anything1",
    "wandb_api_key: " + "0123456789abcdef" * 2 + "01234567",
]

HARMLESS = [
    'tokens: ["<Thinking>", "</Thinking>"]',
    "special_tokens: {eos_token: <|im_end|>, pad_token: '<|endoftext|>', unk_token: <unk>}",
    '"eos_token_id": 151645,',
    '"tokens_per_second": 12345.6',
    "token_count: 123456",
    "api_key: ${OPENAI_API_KEY}",
    "hub_token: null",
    "https://huggingface.co/Qwen/Qwen3-8B-Base",
    "https://host:8080/path@x",
    "pip install git+ssh://git@github.com/x/y",
    "risk-averse-behaviour-in-large-models task-specific-tokenizer-settings",
    "sha256: 3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_found_in_its_line_and_never_repeated(secret: str) -> None:
    findings = find_secrets(f"base_model: x\n\nnotes: see {secret} here\nseed: 42\n")
    assert findings
    assert {finding.line for finding in findings} == {3}
    assert not any(secret in str(finding) or secret[-8:] in str(finding) for finding in findings)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_recipes_and_configs_say_is_no_secret(text: str) -> None:
    assert find_secrets(text) == []


def test_no_shipped_file_looks_like_a_secret(repository: Path) -> None:
    files = [path for folder in ("recipes", "tasks") for path in (repository / folder).rglob("*") if path.is_file()]
    assert len(files) > 30
    for path in files:
        if path.suffix in (".yml", ".yaml", ".json", ".md"):
            assert find_secrets(path.read_text("utf-8")) == [], path


@pytest.mark.parametrize("before", [0, 1, MAX_LINE - 20, MAX_LINE, 3 * MAX_LINE - 7])
def test_a_secret_in_a_very_long_line(before: int) -> None:
    (finding,) = find_secrets("." * before + " " + SECRETS[0] + " " + "." * 1000)
    assert finding.line == 1


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_stands_around_it(before: str, after: str) -> None:
    text = f"{before}\n{SECRETS[0]}\n{after}"
    assert any(finding.line == len(f"{before}\n".splitlines()) + 1 for finding in find_secrets(text))


@pytest.mark.parametrize(
    "unit", ["a", "-_", "token", "https://", "a:", "eyJ", "sk-", "secret:", "api_key", "BEGIN ", "= "]
)
def test_hostile_lines_take_bounded_time(unit: str) -> None:
    # Anything worse than linear would hit the suite's timeout.
    find_secrets(unit * (200_000 // len(unit)))
