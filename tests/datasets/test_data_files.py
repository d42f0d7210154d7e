"""Data files of every kind and damage: what the check lets through, `datasets` loads; the rest is one line with its place."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sftkey.datasets import file_formats
from sftkey.datasets.data_files import check_data_files
from sftkey.datasets.loading import entry_rows
from sftkey.util.errors import UserError

ROWS = [{"question": f"q{i}", "thinking": f'é {i}, "so"', "answer": str(i)} for i in range(5)]
GOOD = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


def csv(rows: str = 'q,t,5\nq2,"t, 2",6\n') -> str:
    return "question,thinking,answer\n" + rows


READABLE = {
    "good.jsonl": GOOD,
    "blank.jsonl": f"\n\n{GOOD}\n \n",
    "crlf.jsonl": GOOD.replace("\n", "\r\n"),
    "cr.jsonl": GOOD.replace("\n", "\r"),
    "no_end.jsonl": GOOD.rstrip(),
    "joined.jsonl": GOOD.replace("\n", " "),
    "bom.jsonl": "\ufeff" + GOOD,
    "mixed.jsonl": GOOD + '{"question": "q", "thinking": "t", "answer": 5}\n',
    "nan.jsonl": GOOD + '{"question": "q", "thinking": "t", "answer": NaN}\n',
    "null.jsonl": GOOD + '{"question": null, "thinking": "t", "answer": "5"}\n',
    "fewer.jsonl": GOOD + '{"question": "q"}\n',
    "pair.jsonl": '{"question": "\\ud83d\\ude00", "thinking": "t", "answer": "5"}\n',
    "list.json": json.dumps(ROWS),
    "pretty.json": json.dumps(ROWS, indent=1),
    "object.json": json.dumps(ROWS[0], indent=1),
    "packed.jsonl.gz": gzip.compress(GOOD.encode()),
    "packed.jsonl.bz2": bz2.compress(GOOD.encode()),
    "packed.jsonl.xz": lzma.compress(GOOD.encode()),
    "packed_without_suffix.jsonl": gzip.compress(GOOD.encode()),
    "good.csv": csv(),
    "cr.csv": csv("q,t,5\r"),
    "lines.csv": csv('q,"t\nt",5\n'),
    "short.csv": csv("q\nq,t,5\n"),
    "good.parquet": parquet(),
    "good.arrow": arrow(),
}

ROW = '{"question": "q", "thinking": %s, "answer": "5"}\n'
UNREADABLE = {
    "null_first.jsonl": ("null\n" + GOOD, "line 1 holds null"),
    "null_later.jsonl": (GOOD + "null\n", "line 6 holds null"),
    "number.jsonl": ("5\n" + GOOD, "line 1 holds a number"),
    "text.jsonl": (GOOD + '"a"\n', "line 6 holds a text"),
    "true.jsonl": ("true\n", "line 1 holds true or false"),
    "list_later.jsonl": (GOOD + "[1]\n", "line 6 holds a list"),
    "list_then_rows.jsonl": ("[1]\n" + GOOD, "goes on after its first list"),
    "nulls.json": ('[{"question": "q"}, null]', "row 1 holds null"),
    "empty_list.json": ("[]", "holds a list where rows are expected"),
    "cut_list.json": ('[{"question": "q"},', "not valid JSON"),
    "empty.jsonl": ("", "the file is empty"),
    "blank.jsonl": (" \n\n", "no rows"),
    "no_keys.jsonl": ("{}\n{}\n", "no rows"),
    "broken.jsonl": (GOOD + '{"question": "q", \n' + GOOD, "line 6 is not valid JSON"),
    "cut.jsonl": (GOOD + '{"question": "q", "thin', "line 6 is not valid JSON"),
    "quotes.jsonl": ("{'question': 'q'}\n", "line 1 is not valid JSON"),
    "twice.jsonl": (GOOD + '{"question": "q", "question": "p"}\n', "line 6.*'question' twice"),
    "utf16.jsonl": (GOOD.encode("utf-16"), "line 1 is not UTF-8"),
    "latin.jsonl": (GOOD.encode("latin-1"), "line 1 is not UTF-8"),
    "zero.jsonl": (GOOD + "\0\n", "line 6 is not valid JSON"),
    "half.jsonl": (GOOD + ROW % '"\\ud800"', "line 6 holds one half of a surrogate pair"),
    "large.jsonl": (ROW % "1e999", "line 1.*too large"),
    "digits.jsonl": (ROW % ("9" * 5000), "line 1 is not valid JSON"),
    "deep.jsonl": (ROW % ("[" * 100_000 + "]" * 100_000), "line 1 is nested deeper than 50"),
    "deep_objects.jsonl": (GOOD + ROW % ('{"a":' * 60 + "1" + "}" * 60), "line 6 is nested deeper than 50"),
    "page.jsonl": ("<html></html>", "line 1 is not valid JSON"),
    "pointer.jsonl": ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "git lfs pull"),
    "cut.jsonl.gz": (gzip.compress(GOOD.encode() * 1000)[:-20], "cut off or damaged"),
    "garbage.jsonl.gz": (b"\x1f\x8b" + bytes(range(200)), "can't be read|cut off or damaged"),
    "plain.jsonl.gz": (GOOD, "isn't compressed"),
    "cut.jsonl.xz": (lzma.compress(GOOD.encode())[:-10], "cut off or damaged"),
    "cut.jsonl.bz2": (bz2.compress(GOOD.encode())[:-10], "cut off or damaged"),
    "null.jsonl.gz": (gzip.compress(b"null\n"), "line 1 holds null"),
    "more.csv": (csv("q,t,5\nq,t,6,7\n"), "line 3 has 4 fields and the header 3"),
    "open.csv": (csv('q,t,5\n"q,t,5\nq,t,6\n'), "line 3 and never closes"),
    "latin.csv": (csv("é,t,5\n").encode("latin-1"), "line 2 is not UTF-8"),
    "header.csv": (csv(""), "no rows"),
    "empty.csv": ("", "the file is empty"),
    "cut.parquet": (parquet()[:-100], "can't be read"),
    "garbage.parquet": (bytes(range(256)), "can't be read"),
    "no_rows.parquet": (parquet()[:0], "the file is empty"),
    "cut.arrow": (arrow()[:-60], "can't be read"),
    "garbage.arrow": (bytes(range(256)), "can't be read"),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", UNREADABLE)
def test_each_damage_is_one_line_with_its_place(name: str, tmp_path: Path) -> None:
    content, message = UNREADABLE[name]
    path = write(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as error:
        check_data_files({"path": str(path)})
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def load(path: Path, cache: Path) -> int:
    from datasets import load_dataset

    kind = next((kind for kind in ("parquet", "arrow", "csv") if f".{kind}" in path.name), "json")
    return len(load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache)))


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        (
            "rows.tsv",
            "question\tanswer\n1?\t1\n",
            "separated by tabs, which is read as one column; write it with commas",
        ),
        ("rows.tsv.gz", gzip.compress(b"question\tanswer\n1?\t1\n"), "separated by tabs"),
        ("rows.XLSX", b"PK\x03\x04", "it is a spreadsheet; save it as CSV"),
        ("rows.yaml", "- question: 1?\n", "rows are read from JSON Lines, JSON, CSV, Parquet and Arrow"),
        ("rows.sqlite", b"SQLite format 3\x00", "rows are read from JSON Lines"),
    ],
)
def test_files_of_other_kinds_are_one_line_with_what_to_do(
    name: str, content: str | bytes, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for entry in ({"path": str(path)}, {"path": "csv", "data_files": [str(path)]}):
        with pytest.raises(UserError, match=f"^{path}: .*{advice}") as refused:
            check_data_files(entry)
        assert "\n" not in str(refused.value)


def test_tabs_in_a_folder_are_columns(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("question\tanswer\n1?\t1\n")
    entry = {"path": str(tmp_path), "split": "train"}
    check_data_files(entry)
    assert entry_rows(entry, "datasets[0]").column_names == ["question", "answer"]


@pytest.mark.parametrize("name", READABLE)
def test_what_datasets_loads_is_let_through(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, READABLE[name])
    check_data_files({"path": str(path)})
    assert load(path, tmp_path / "cache")


def test_what_is_let_through_loads_whatever_the_damage(tmp_path: Path) -> None:
    """Bytes flipped, cut, put in, lines moved: either a line that says so, or `datasets` reads the file too."""
    chance = random.Random(7)
    outcomes = {True: 0, False: 0}
    pieces = [
        b"null",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b",",
        b"\\",
        b"\n",
        b"\0",
        b"\xff",
        b"\\ud800",
        b"1e999",
        b":",
        b"\r",
    ]
    for number in range(150):
        name = chance.choice(["good.jsonl", "list.json", "pretty.json", "good.csv", "lines.csv"])
        content = bytearray(READABLE[name].encode())  # type: ignore[union-attr]
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(content))
            match chance.randrange(3):
                case 0:
                    content[place : place + chance.randint(1, 8)] = b""
                case 1:
                    content[place:place] = chance.choice(pieces)
                case 2:
                    content[place] = chance.randrange(256)
        path = write(tmp_path, f"{number}_{name}", bytes(content))
        try:
            check_data_files({"path": str(path)})
        except UserError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        assert load(path, tmp_path / "cache"), content
    assert min(outcomes.values()) > 20, outcomes


def test_a_line_that_fills_the_memory_and_a_bomb_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_formats, "MAX_LINE_BYTES", 100_000)
    write(tmp_path, "long.jsonl", GOOD + ROW % f'"{"x" * 200_000}"')
    with pytest.raises(UserError, match=r"long\.jsonl: line 6 is longer than 100,000 bytes"):
        check_data_files({"path": str(tmp_path / "long.jsonl")})
    monkeypatch.setattr("sftkey.datasets.data_files.SMALL_BYTES", 1_000_000)
    write(tmp_path, "bomb.jsonl.gz", gzip.compress(GOOD.encode() * 20_000))
    with pytest.raises(UserError, match=r"bomb\.jsonl\.gz: it expands to more than 200 times"):
        check_data_files({"path": str(tmp_path / "bomb.jsonl.gz")})
    with zipfile.ZipFile(tmp_path / "bomb.jsonl.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jsonl", GOOD * 20_000)
    with pytest.raises(UserError, match=r"bomb\.jsonl\.zip: it expands"):
        check_data_files({"path": str(tmp_path / "bomb.jsonl.zip")})


BOUND = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from sftkey.datasets.data_files import check_data_files
from sftkey.datasets.loading import entry_rows
from sftkey.util.errors import UserError
try:
    check_data_files({"path": sys.argv[1]})
except UserError as error:
    print(error)
# Not ru_maxrss, which a process takes over from the one that started it.
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_one_line_of_a_gigabyte_in_a_small_archive_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"question": "')
        for _ in range(64):
            file.write(b"x" * 2**24)
    result = subprocess.run(
        [sys.executable, "-c", BOUND, str(path), str(6 * 2**30)], capture_output=True, text=True, check=True
    )
    message, peak = result.stdout.strip().splitlines()
    assert "line 1 is longer than 16,777,216 bytes" in message
    assert int(peak) < 400
