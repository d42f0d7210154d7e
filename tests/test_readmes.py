"""What the READMEs say exists: commands and their options, error messages, links, files."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from support.availability import REPOSITORY

READMES = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/**/README.md"))
    if not {".venv", "outputs", "build"} & set(path.relative_to(REPOSITORY).parts)
    and "written_by_9c54c77" not in path.parts
)
NAMES = [str(path.relative_to(REPOSITORY)) for path in READMES]
COMMANDS = ("axolotl", "bash", "lm_eval", "make", "python", "sftkey")


def lines_of_fences(text: str) -> Iterator[str]:
    """The lines of the shell blocks, continued ones joined."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S):
        if language in {"", "bash", "sh"}:
            yield from block.replace("\\\n", " ").splitlines()


def commands(path: Path) -> list[list[str]]:
    """Every quoted command, as words: in shell blocks and in inline code."""
    text = path.read_text("utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    inline = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    found = []
    for line in (*lines_of_fences(text), *inline):
        line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip())
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        words = words[: next((i for i, word in enumerate(words) if word in {"|", ">", "&&", "&"}), None)]
        words = ["python", *words] if words and words[0].startswith("tests/") and words[0].endswith(".py") else words
        if len(words) > 1 and words[0] in COMMANDS and "…" not in words and "..." not in words:
            found.append(words)
    return found


@cache
def axolotl_commands() -> dict[str, click.Command]:
    from axolotl.cli.main import cli

    return cli.commands


def parse_click(command: click.Command, words: list[str]) -> None:
    """Refuse an option that the command doesn't have; whether files are there isn't looked at."""
    words = words[: words.index("--")] if "--" in words else words
    context = click.Context(command, info_name=command.name)
    if not context.ignore_unknown_options:
        command.make_parser(context).parse_args([word.strip("[]") for word in words])
        return
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    train = {o for parameter in axolotl_commands()["train"].params for o in parameter.opts + parameter.secondary_opts}
    for word in words:
        assert not word.startswith("--") or word.partition("=")[0] in known | train, word


def check_sftkey(words: list[str]) -> None:
    from sftkey.cli.main import sftkey

    context = click.Context(sftkey, info_name="sftkey")
    if words[0].startswith("-"):
        known = {option for parameter in sftkey.get_params(context) for option in parameter.opts}
        assert words[0] in known, words
        return
    loaded = sftkey.get_command(context, words[0])
    assert loaded is not None, f"there is no `sftkey {words[0]}`"
    assert loaded.make_context  # found
    if "--help" in words or len(words) == 1 or words[1].startswith("("):
        return
    parse_click(getattr(loaded, "_load", lambda: loaded)(), words[1:])


def check_lm_eval(words: list[str]) -> None:
    from lm_eval._cli import HarnessCLI

    verbs = ("run", "ls", "validate")
    arguments = words if words[0] in verbs else ["run", *words]
    parsed = HarnessCLI()._parser.parse_args(arguments)  # exits with status 2 on an unknown option
    tasks = re.split(r"[ ,]", " ".join(parsed.tasks)) if isinstance(parsed.tasks, list) else [parsed.tasks or ""]
    shipped = {line for path in (REPOSITORY / "tasks").glob("*.yaml") for line in path.read_text().split()}
    assert all(task in shipped for task in tasks if task.startswith("sftkey_")), tasks


def check(words: list[str]) -> None:
    """Raise, or end, where a command can't be what the README means."""
    name, rest = words[0], words[1:]
    if name == "sftkey" or (name == "axolotl" and rest[0] == "sftkey"):
        check_sftkey(rest[1:] if name == "axolotl" else rest) if rest != ["sftkey"] else None
    elif name == "axolotl" and not rest[0].startswith("-"):
        assert rest[0] in axolotl_commands(), f"there is no `axolotl {rest[0]}`"
        parse_click(axolotl_commands()[rest[0]], rest[1:])
    elif name == "lm_eval":
        check_lm_eval(rest)
    elif name == "make":
        targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M))
        assert set(rest) <= targets, rest
    elif name in {"python", "bash"} and rest[0].startswith(("tests/", "recipes/", "tasks/")):
        script = REPOSITORY / rest[0]
        assert script.is_file(), rest[0]
        code = "".join(path.read_text("utf-8") for path in script.parent.glob("*.py"))
        for option in (word.partition("=")[0] for word in rest[1:] if word.startswith("--")):
            as_a_field = re.search(rf"^    {option[2:].replace('-', '_')}:", code, flags=re.M)
            assert f'"{option}"' in code or as_a_field, f"{rest[0]} has no {option}"


CASES = [(name, words) for name, path in zip(NAMES, READMES, strict=True) for words in commands(path)]


def test_there_are_commands_to_check() -> None:
    assert len(CASES) > 60
    assert {words[0] for _, words in CASES} == set(COMMANDS)


@pytest.mark.parametrize(("name", "words"), CASES, ids=[f"{name}: {' '.join(words)[:60]}" for name, words in CASES])
def test_commands_exist_and_parse(name: str, words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "words",
    [
        ["sftkey", "runn", "x.yml"],
        ["sftkey", "share", "x", "--weight-files"],
        ["sftkey", "run", "x.yml", "--evil"],
        ["axolotl", "trian", "x.yml"],
        ["lm_eval", "--tasks", "sftkey_gsm9k"],
        ["lm_eval", "--task-names", "sftkey_gsm8k"],
        ["make", "demos"],
        ["python", "tests/demo/runs.py"],
        ["python", "tests/demo/run.py", "--everything"],
    ],
)
def test_a_command_that_does_not_exist_is_noticed(words: list[str]) -> None:
    with pytest.raises((AssertionError, click.UsageError, SystemExit)):
        check(words)


@cache
def texts_of_the_code() -> str:
    """Every text of the package; ``…`` stands for what is filled in."""
    found = []
    for path in (REPOSITORY / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


MESSAGES = [
    line.split("|")[1].strip()
    for path in READMES
    for table in re.findall(r"^\| message \|.*?\n\|[-| ]+\n((?:\|.*\n?)+)", path.read_text("utf-8"), flags=re.M)
    for line in table.splitlines()
]


def test_there_are_messages_to_check() -> None:
    assert len(MESSAGES) >= 15


@pytest.mark.parametrize("message", MESSAGES)
def test_error_messages_are_in_the_code(message: str) -> None:
    if "from Axolotl" in message:
        return
    (code,) = re.findall(r"`(.+)`", message)
    fragments = [part.strip() for part in code.split("…") if len(part.strip()) > 3]
    assert fragments, f"{message} has nothing to look for"
    for fragment in fragments:
        assert fragment in texts_of_the_code(), f"no message has {fragment!r}"


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    path = REPOSITORY / name
    for target in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    ):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{name}: {target}: {sorted(anchors(linked))}"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    prose = re.sub(r"^```.*?^```", "", (REPOSITORY / name).read_text("utf-8"), flags=re.M | re.S)
    for code in re.findall(r"(?<!`)`((?:plugins|recipes|tasks|tests)/[\w./-]+)`", prose):
        assert (REPOSITORY / code).exists(), f"{name}: {code}"


def test_the_front_page_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_bytes()) <= 10_000
