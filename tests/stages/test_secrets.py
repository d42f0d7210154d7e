"""What looks like a secret is found by line, and nothing of a normal recipe is."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.stages.secret_forms import FORMS, Form
from sftkey.stages.secrets import MAX_LINE, find_secrets, find_secrets_in, redacted
from support import secret_corpus

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


@pytest.mark.parametrize("seed", [0, 1])
def test_the_corpus_is_found(seed: int) -> None:
    """At least 95 in 100 of each dressing, and of all kinds; every kind is found in most of its dressings."""
    cases = list(secret_corpus.cases(seed))
    found = {case: bool(find_secrets(case.text)) for case in cases}
    kinds = {case.kind for case in cases}
    assert len(kinds) >= 160
    for name in ("kind", "dressing"):
        for value in {getattr(case, name) for case in cases}:
            group = [found[case] for case in cases if getattr(case, name) == value]
            assert sum(group) >= (0.75 if name == "kind" else 0.95) * len(group), value
    assert sum(found.values()) >= 0.99 * len(cases)


@pytest.mark.parametrize("seed", range(5))
def test_what_only_looks_like_a_secret(seed: int) -> None:
    look_alikes = secret_corpus.look_alikes(seed)
    assert len(look_alikes) >= 60
    alarms = {name: find_secrets(text) for name, text in look_alikes.items() if find_secrets(text)}
    assert len(alarms) <= 1, alarms


def test_nothing_of_a_secret_is_in_a_redacted_text() -> None:
    for case in secret_corpus.cases():
        if case.dressing != "base64" and find_secrets(case.text):
            shown = redacted(f"there is no such file:\n{case.text}\nname another one")
            for part in case.secret.split():
                assert len(part) < 16 or part not in shown, case


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_a_file_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_bytes(f'{{\n "caf\u00e9": 1,\n "token": "{SECRETS[0]}"}}'.encode(encoding))
    assert {finding.line for finding in find_secrets_in(path)} == {3}


def test_bytes_that_are_no_text_around_it(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(bytes(range(128, 256)) * 2000 + b"\xff " + SECRETS[0].encode() + b" \xfe" * 100_000)
    assert find_secrets_in(path)


@pytest.mark.parametrize("before", [0, MAX_LINE - 30, MAX_LINE - 1, 5 * MAX_LINE + 17])
def test_wherever_in_a_large_file(tmp_path: Path, before: int) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("x\n" * (before // 2) + f"{SECRETS[0]}\n" + "y\n" * MAX_LINE)
    assert [finding.line for finding in find_secrets_in(path)] == [before // 2 + 1]


def safetensors(path: Path, metadata: dict[str, str], after: bytes = b"") -> Path:
    header = json.dumps(
        {"__metadata__": metadata, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0" + after)
    return path


def test_the_header_of_safetensors_is_text_and_so_is_what_is_behind_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert find_secrets_in(safetensors(path, {"format": "pt"})) == []
    assert find_secrets_in(safetensors(path, {"note": SECRETS[0]}))
    assert find_secrets_in(safetensors(path, {"format": "pt"}, after=SECRETS[0].encode()))
    path.write_text(SECRETS[0])  # no safetensors at all
    assert find_secrets_in(path)


def test_a_real_tokenizer_raises_no_alarm(tmp_path: Path) -> None:
    """Every prefix of a token is a word that may be in a vocabulary, with others around it."""
    words = sorted(
        {literal for form in FORMS for literal in form.literals} | {"password", "token", "secret", "api_key"}
    )
    vocabulary = {word: number for number, word in enumerate([*words, *(f"\u0120{word}" for word in words)])}
    merges = [pair for word in words for pair in (f"{word[:2]} {word[2:]}", f"\u0120{word[:3]} {word[3:]}")]
    path = tmp_path / "tokenizer.json"
    for indent in (None, 2):
        path.write_text(
            json.dumps({"model": {"vocab": vocabulary, "merges": merges}}, indent=indent, ensure_ascii=False)
        )
        assert find_secrets_in(path) == []
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    code = Path(spec.origin).with_name("tokenization_utils_base.py")
    assert find_secrets(code.read_text("utf-8")) == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind + " " + form.literals[0])
def test_every_form_is_linear(form: Form) -> None:
    """Twice the text takes about twice the time, whatever the form's own beginning is repeated with."""

    def seconds(text: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            for _ in form.pattern.finditer(text):
                pass
            times.append(time.process_time() - start)
        return min(times)

    for literal in form.literals:
        for unit in (literal, f"{literal}a", f" {literal}1 ", f"a:{literal}", f"a@{literal}", f"{literal}a.a1"):
            short, long = (seconds(unit * (size // len(unit))) for size in (8_000, 32_000))
            assert long < 12 * short + 0.02, unit
