"""A recipe file of any content: a recipe, or one line; within seconds and megabytes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.recipes.load import load_recipe
from sftkey.recipes.yaml_file import MAX_BYTES, parse_yaml
from sftkey.util.errors import UserError

LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))

HOSTILE = {
    "aliases": (LAUGHS, "more than 100,000 values"),
    "merges": (MERGES, "more than 100,000 values"),
    "itself": ("a: &a [*a]\n", "line 1: an anchor that holds itself"),
    "itself_by_merge": ("a: &a\n  <<: *a\n", "an anchor that holds itself|not valid YAML"),
    "lists": ("a: " + "[" * 5_000 + "]" * 5_000, "nested deeper"),
    "lists_unclosed": ("[" * 100_000, "nested deeper"),
    "maps": ("{a: " * 40 + "1" + "}" * 40, "nested deeper than 30"),
    "large": ("a: " + "x" * MAX_BYTES, "more than 262,144 bytes"),
    "latin": ("a: é\n".encode("latin-1"), "is not UTF-8 .byte 4"),
    "utf16": ("a: b\n".encode("utf-16"), "is not UTF-8"),
    "binary": (bytes(range(256)), "is not UTF-8|not valid YAML"),
    "zero": ("a: \0\n", "not valid YAML"),
    "date": ("a: 2024-99-99\n", "a value can't be read"),
    "digits": ("a: " + "9" * 5_000, "a value can't be read"),
    "base64": ("a: !!binary 'a'\n", "not valid YAML"),
    "python": ("a: !!python/object/apply:os.system ['true']\n", "line 1, column 4.*could not determine a constructor"),
    "name": ("a: !!python/name:os.system\n", "could not determine a constructor"),
    "key": ("? [a]\n: b\n", "unhashable key"),
    "two": ("a: 1\n---\nb: 1\n", "another document"),
    "tab": ("a:\n\tb: 1\n", "line 2, column 1"),
    "quote": ('a: "b\n', "not valid YAML"),
    "twice": ("num_epochs: 1\nb: 2\nnum_epochs: 3\n", "line 3: the key 'num_epochs' is there twice"),
    "twice_inside": ("datasets:\n- {path: a, path: b}\n", "line 2: the key 'path' is there twice"),
    "list": ("- a\n", "it holds list, not a mapping"),
    "empty": ("", "it holds NoneType, not a mapping"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_is_one_line_with_the_file(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "recipe.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()
    with pytest.raises(UserError, match=message) as error:
        load_recipe(path)
    assert time.process_time() - began < 10
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1


def test_what_recipes_use_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text("\ufeffbase: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nother: *base\n", encoding="utf-8")
    assert load_recipe(path) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}, "other": {"a": 1, "b": 2}}
    path.chmod(0)
    with contextlib.suppress(PermissionError):  # root reads it all the same
        path.read_bytes()
        return
    with pytest.raises(UserError, match="can't be read"):
        load_recipe(path)


@given(st.text(st.sampled_from(list("ab:-[]{}&*<!|>'\"?,# \n\t0123456789.~")), max_size=60))
@settings(max_examples=400, deadline=None)
def test_it_reads_what_pyyaml_reads(text: str) -> None:
    try:
        ours: object = parse_yaml(text, "it")
    except UserError as error:
        ours = error
    if not isinstance(ours, UserError):
        assert repr(ours) == repr(yaml.safe_load(text))
        return
    assert len(str(ours).splitlines()) == 1
    if not any(word in str(ours) for word in ("is there twice", "nested deeper", "holds itself")):
        with pytest.raises((yaml.YAMLError, ValueError, TypeError, RecursionError)):
            yaml.safe_load(text)
