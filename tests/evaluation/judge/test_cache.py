"""The verdict cache: keys, durability, sharing, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.evaluation.judge.cache import CachedVerdict, JudgeCache, cache_key

PARAMETERS = {"temperature": 0, "max_tokens": 64}


@pytest.mark.parametrize("verdict", [CachedVerdict(True, "Yes."), CachedVerdict(False, "no"), CachedVerdict(True, "")])
def test_a_verdict_is_there_after_reopening(tmp_path: Path, verdict: CachedVerdict) -> None:
    with JudgeCache(tmp_path) as cache:
        assert cache.get("key") is None
        cache.put("key", verdict)
    with JudgeCache(tmp_path) as cache:
        assert cache.get("key") == verdict


def test_the_key_depends_on_prompt_model_and_parameters() -> None:
    key = cache_key("prompt", "model", PARAMETERS)
    assert key == cache_key("prompt", "model", dict(reversed(PARAMETERS.items())))
    others = {
        cache_key("prompt ", "model", PARAMETERS),
        cache_key("prompt", "model2", PARAMETERS),
        cache_key("prompt", "model", {**PARAMETERS, "temperature": 1}),
        cache_key("prompt", "model", {"temperature": 0}),
    }
    assert len(others | {key}) == 5


@given(st.text(), st.text(), st.text(), st.text())
def test_no_two_questions_share_a_key(prompt: str, model: str, other_prompt: str, other_model: str) -> None:
    same_key = cache_key(prompt, model, PARAMETERS) == cache_key(other_prompt, other_model, PARAMETERS)
    assert same_key == ((prompt, model) == (other_prompt, other_model))


class _Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (str(self._target),))


def put_raw(folder: Path, key: str, value: object) -> None:
    """Put any value into a cache, as anybody can who may write to its file."""
    with JudgeCache(folder):
        pass
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute("INSERT INTO Cache (key, raw, value) VALUES (?, 1, ?)", (key, value))


def test_what_others_put_into_the_cache_is_never_unpickled(tmp_path: Path) -> None:
    folder, target = tmp_path / "cache", tmp_path / "executed"
    bomb = pickle.dumps(_Bomb(target))
    put_raw(folder, "key", bomb)
    with JudgeCache(folder) as cache:
        assert cache.get("key") is None
    assert not target.exists()
    pickle.loads(bomb)
    assert target.exists(), "the bomb is harmless, so the test shows nothing"


@pytest.mark.parametrize(
    "stored", ["", "yes", "[]", '{"same": "yes"}', '{"same": 1}', '{"reply": "yes"}', "[" * 100_000, 7, 0.5, b"\xff"]
)
def test_an_entry_without_a_verdict_counts_as_absent(tmp_path: Path, stored: object) -> None:
    put_raw(tmp_path, "key", stored)
    with JudgeCache(tmp_path) as cache:
        assert cache.get("key") is None
        cache.put("key", CachedVerdict(True, "yes"))
        assert cache.get("key") == CachedVerdict(True, "yes")


def test_a_lone_surrogate_in_an_entry_is_read_as_a_question_mark(tmp_path: Path) -> None:
    put_raw(tmp_path, "key", '{"same": true, "reply": "Yes \\ud83d \\ud83d\\ude00"}')
    with JudgeCache(tmp_path) as cache:
        assert cache.get("key") == CachedVerdict(True, "Yes ? \U0001f600")


def test_a_cache_that_diskcache_wrote_stays_in_use(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "cache.db")) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value);
            INSERT INTO Settings VALUES ('count', 0);
            CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL,
                access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0,
                mode INTEGER DEFAULT 0, filename TEXT, value BLOB);
            CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw);
            CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache FOR EACH ROW BEGIN
                UPDATE Settings SET value = value + 1 WHERE key = 'count'; END;
            """
        )
        connection.execute(
            "INSERT INTO Cache (key, raw, store_time, mode, value) VALUES ('old', 1, 0.0, 1, ?)",
            ('{"same": false, "reply": "No."}',),
        )
    with JudgeCache(tmp_path) as cache:
        assert cache.get("old") == CachedVerdict(False, "No.")
        cache.put("old", CachedVerdict(True, "Yes."))
        cache.put("new", CachedVerdict(True, "yes"))
    with JudgeCache(tmp_path) as cache:
        assert cache.get("old") == CachedVerdict(True, "Yes.")
        assert cache.get("new") == CachedVerdict(True, "yes")


def test_nothing_is_evicted_or_put_beside_the_database(tmp_path: Path) -> None:
    reply = "x" * 100_000
    with JudgeCache(tmp_path) as cache:
        for number in range(50):
            cache.put(f"key{number}", CachedVerdict(True, reply))
    with JudgeCache(tmp_path) as cache:
        assert all(cache.get(f"key{number}") == CachedVerdict(True, reply) for number in range(50))
    assert {path.name for path in tmp_path.rglob("*")} <= {"cache.db", "cache.db-wal", "cache.db-shm"}


def _no_folder(path: Path) -> None:
    path.write_text("a file where the folder should be")


def _no_database(path: Path) -> None:
    path.mkdir()
    (path / "cache.db").write_bytes(b"this is no SQLite file " * 1000)


def _cut_off_database(path: Path) -> None:
    with JudgeCache(path) as cache:
        for number in range(200):
            cache.put(f"key{number}", CachedVerdict(True, "yes" * 100))
    database = path / "cache.db"
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])


def _foreign_schema(path: Path) -> None:
    path.mkdir()
    with sqlite3.connect(path / "cache.db") as connection:
        connection.execute("CREATE TABLE Cache (other TEXT)")
    connection.close()


@pytest.mark.parametrize("damage", [_no_folder, _foreign_schema])
def test_a_broken_cache_is_reported_once_and_left_alone(tmp_path: Path, damage, caplog) -> None:
    damage(tmp_path / "cache")
    with JudgeCache(tmp_path / "cache") as cache:
        for number in range(200):
            cache.put(f"other{number}", CachedVerdict(True, "yes"))
            cache.get(f"key{number}")
    assert len(caplog.records) == 1
    assert "SFTKEY_JUDGE_CACHE" in caplog.text
    assert str(tmp_path / "cache") in caplog.text


def _flipped_bytes(path: Path) -> None:
    with JudgeCache(path) as cache:
        for number in range(200):
            cache.put(f"key{number}", CachedVerdict(True, "yes" * 100))
    database = path / "cache.db"
    content = bytearray(database.read_bytes())
    for offset in range(40_960, len(content), 4_096):
        content[offset : offset + 8] = b"\xff" * 8
    database.write_bytes(content)


@pytest.mark.parametrize("damage", [_no_database, _cut_off_database, _flipped_bytes])
def test_a_damaged_cache_is_set_aside_and_healed(tmp_path: Path, damage, caplog) -> None:
    folder = tmp_path / "cache"
    damage(folder)
    damaged = (folder / "cache.db").read_bytes()
    with JudgeCache(folder) as cache:
        kept = sum(cache.get(f"key{number}") == CachedVerdict(True, "yes" * 100) for number in range(200))
        for number in range(300):
            cache.put(f"other{number}", CachedVerdict(True, "no"))
    assert len(caplog.records) == 1
    assert f"the judge cache {folder} was damaged" in caplog.text
    (aside,) = folder.glob("cache.db.damaged-*[0-9]")
    assert aside.read_bytes() == damaged
    with JudgeCache(folder) as cache:
        assert all(cache.get(f"other{number}") == CachedVerdict(True, "no") for number in range(300))
        found = [cache.get(f"key{number}") for number in range(200)]
    taken_over = len(found) - found.count(None)
    assert set(found) <= {None, CachedVerdict(True, "yes" * 100)}
    assert f" {taken_over} verdicts taken over" in caplog.text
    assert taken_over > kept / 2 - 1
    assert len(caplog.records) == 1
    assert bool(kept) == (damage is _flipped_bytes)


def test_a_cache_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with JudgeCache(folder) as cache:
        cache.put("key", CachedVerdict(True, "yes"))
    code = (
        "import sys, logging; from pathlib import Path\n"
        "from sftkey.evaluation.judge.cache import CachedVerdict, JudgeCache\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "with JudgeCache(Path(sys.argv[1])) as cache:\n"
        "    cache.put('new', CachedVerdict(True, 'yes'))\n"
        "    cache.put('newer', CachedVerdict(True, 'yes'))\n"
        "    print(cache.get('key'), cache.get('new'))\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    if os.geteuid() == 0:  # who may write everywhere
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--", *command]
    for path in (folder / "cache.db", folder):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "CachedVerdict(same=True, reply='yes') None\n"
    assert done.stderr.count("can only be read") == len(done.stderr.splitlines()) == 1, done.stderr


_WRITER = """
import sys
from pathlib import Path
from sftkey.evaluation.judge.cache import CachedVerdict, JudgeCache
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with JudgeCache(folder) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        cache.put(f"{name} {number}", CachedVerdict(number % 2 == 0, name))
        cache.put(f"shared {number}", CachedVerdict(number % 2 == 0, "shared"))
        print(number, flush=True)
    sys.stdin.readline()
"""


def _start_writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(folder), name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_share_a_cache_that_none_of_them_has_created(tmp_path: Path) -> None:
    count = 100
    writers = [_start_writer(tmp_path, f"writer{number}", count) for number in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        _, errors = writer.communicate("go\ndone\n", timeout=120)
        assert (writer.returncode, errors) == (0, "")
    with JudgeCache(tmp_path) as cache:
        for name in ("writer0", "writer1", "writer2", "shared"):
            for number in range(count):
                assert cache.get(f"{name} {number}") == CachedVerdict(number % 2 == 0, name)


def test_a_killed_process_loses_no_stored_verdict(tmp_path: Path) -> None:
    writer = _start_writer(tmp_path, "writer", 50)
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()
    lines = [writer.stdout.readline() for _ in range(51)]
    assert lines[-1] == "49\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    with JudgeCache(tmp_path) as cache:
        assert all(cache.get(f"writer {number}") is not None for number in range(50))


def test_what_is_on_disk_is_plain_json(tmp_path: Path) -> None:
    with JudgeCache(tmp_path) as cache:
        cache.put("key", CachedVerdict(False, "No."))
    connection = sqlite3.connect(tmp_path / "cache.db")
    rows = connection.execute("SELECT key, value FROM Cache").fetchall()
    connection.close()
    assert [(key, json.loads(value)) for key, value in rows] == [("key", {"same": False, "reply": "No."})]
