"""What `run`, `eval` and `matrix` show while a command runs: in a terminal, elsewhere, with -q and -v."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sftkey.cli.live import _View, followed
from support.commands import SFTKEY
from support.run_place import Place, succeeded

WARNING = "[2026-11-26 06:55:08,487] [WARNING] [sftkey.axolotl.plugin] no_such_key: nobody reads it\x1b]0;evil\x07"
NOISE = [f"[2026-11-26 06:55:08,487] [INFO] [axolotl.cli.config] config line {number}" for number in range(200)]


def steps(total: int) -> str:
    bar = "".join(
        f"\r {n * 100 // total}%|██    | {n}/{total} [00:{n:02}<00:{total - n:02}, 1.0it/s]" for n in range(total + 1)
    )
    return bar + "\r      \r{'loss': '0.512', 'loss_answer': '0.9', 'loss_thinking': '0.25'}\n"


TRAINING = "\n".join([*NOISE, WARNING, WARNING, "Map: 100%|█| 8/8 [00:00<00:00, 9 examples/s]", steps(40)])
EVALUATION = "\n".join([*NOISE, "Running generate_until requests:  50%|██   | 4/8 [00:02<00:02, 2.0it/s]\n"])


@pytest.fixture
def noisy(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Stand-ins that print what the real commands print."""
    monkeypatch.setenv("FAKE_OUTPUT", TRAINING)
    monkeypatch.setenv("FAKE_EVAL_OUTPUT", EVALUATION)
    return place


def test_a_line_per_milestone_where_stderr_is_no_terminal(noisy: Place) -> None:
    result = succeeded(noisy.run("run", "stage2.yml", "--eval"))
    times = re.sub(r"\d+:\d\d\b", "0:00", result.stderr).splitlines()
    training = [
        "  training, log: out/logs/stage1.log",
        "  note: no_such_key: nobody reads it\\x1b]0;evil\\x07",
        *(f"  training: {n}/40, 0:00 left" for n in (10, 20, 30)),
        "  training took 0:00, loss 0.512 (answer 0.900, thinking 0.250)",
    ]
    evaluation = [
        "  evaluation, log: out/logs/stage1.eval.log",
        "  evaluation: 4/8, 0:00 left",
        "  evaluation took 0:00",
    ]
    assert times == [
        "Stage 1 of 2, stage1.yml (sft-tag): starts from the beginning, into out/stage1",
        *training,
        "Stage 2 of 2, stage2.yml (key-tag): starts from the beginning, into out/stage2",
        *(line.replace("stage1", "stage2") for line in training),
        "Evaluation of out/stage1",
        *evaluation,
        "Evaluation of out/stage2",
        *(line.replace("stage1", "stage2") for line in evaluation),
    ]
    assert len(result.stdout.splitlines()) == 3
    assert (noisy.folder / "out/logs/stage1.log").read_text().count("config line") == 200
    # Nothing is run again, so nothing is told of it.
    again = succeeded(noisy.run("run", "stage2.yml", "--eval"))
    assert "log" not in again.stderr
    assert again.stdout == result.stdout


def test_quiet_and_verbose(noisy: Place) -> None:
    quiet = succeeded(noisy.run("run", "stage1.yml", "-q"))
    assert quiet.stderr == ""
    verbose = succeeded(noisy.run("run", "stage2.yml", "-v", "--json"))
    assert [row["stage"] for row in json.loads(verbose.stdout)] == ["out/stage1", "out/stage2"]
    lines = verbose.stderr.splitlines()
    assert [line for line in lines if "config line" in line] == NOISE
    assert "  training, log: out/logs/stage2.log" in lines
    # A bar's last state, not each.
    assert not any("%|██" in line for line in lines)
    assert "\x1b" not in verbose.stderr
    assert "\\x1b]0;evil" in verbose.stderr


def test_matrix_and_eval(noisy: Place) -> None:
    options = ("--models", "qwen3_8b", "--datasets", "gsm8k", "--strategies", "SFT-Tag")
    result = succeeded(noisy.run("matrix", *options, "--eval"))
    assert "  training: 20/40, 00:20 left" in result.stderr
    assert "  evaluation: 4/8, 00:02 left" in result.stderr
    assert "config line" not in result.output
    succeeded(noisy.run("run", "stage1.yml", "-q"))
    result = succeeded(noisy.run("eval", "out/stage1"))
    assert "  evaluation: 4/8, 00:02 left" in result.stderr
    assert "config line" not in result.output


def test_a_failure_shows_the_end_of_the_log_and_names_it(noisy: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "stage1")
    result = noisy.run("run", "stage2.yml")
    assert result.exit_code == 1
    shown = [line for line in result.stderr.splitlines() if line.startswith("  | ")]
    assert len(shown) == 20
    assert shown[-1] == "  | subprocess.CalledProcessError: Command died"
    assert (
        "Error: axolotl train stage1.yml ended with status 1: torch.OutOfMemoryError: CUDA out of memory."
        in result.stderr
    )
    assert "The whole log is out/logs/stage1.log" in result.stderr
    quiet = noisy.run("run", "stage2.yml", "-q")
    assert quiet.exit_code == 1
    assert quiet.stderr.startswith("Error: axolotl train stage1.yml ended with status 1: torch.OutOfMemoryError")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(max_size=200) | st.from_regex(r"[\r\n]?\[.{19}\] \[WARNING\] \[sftkey\.a\] .{1,20}\n", fullmatch=True)
)
def test_no_log_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    for verbose in (False, True):
        log = tmp_path / "hostile.log"
        log.unlink(missing_ok=True)
        view = _View("training", log, "", verbose=verbose)
        log.write_text(text, encoding="utf-8", errors="replace", newline="")
        view.ended.set()
        view.follow()
        shown = capsys.readouterr().err
        assert all(c.isprintable() or c in "\n\t" for c in shown)


def in_a_terminal(place: Path, *arguments: str, stop_at: bytes | None = None) -> tuple[int, bytes]:
    """Run the command with a terminal as stderr; Ctrl-C once it has shown `stop_at`. Status and what the terminal got."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [*SFTKEY, *arguments], cwd=place, env=environment, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    seen, stopped = b"", False
    while True:
        try:
            seen += os.read(ours, 65_536)
        except OSError:  # the last process that had the terminal has ended
            break
        if stop_at is not None and stop_at in seen and not stopped:
            stopped = True
            process.send_signal(signal.SIGINT)
    return process.wait(timeout=60), seen


def slow_axolotl(place: Place, then: str) -> None:
    """A stand-in that writes what the other one does at a pace at which it can be watched, and then does `then`."""
    fake = place.folder / "bin" / "axolotl"
    code = fake.read_text()
    printed = 'sys.stdout.write(os.environ.get("FAKE_OUTPUT", ""))'
    assert printed in code
    slowly = "import time\nfor part in os.environ['FAKE_OUTPUT'].split('~'):\n"
    slowly += f"    print(part, end='', flush=True); time.sleep(0.6)\n{then}"
    fake.write_text(code.replace(printed, slowly))


def test_in_a_terminal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        WARNING + "\n",
        "\r 25%|██    | 10/40 [00:10<00:30, 1.0it/s]",
        "\r      \r{'loss': '0.512', 'loss_answer': '0.9'}\n",
    ]
    parts += ["\r 50%|████  | 20/40 [00:20<00:20, 1.0it/s]", "\r 33%|██    | 1/3 [00:01<00:02, 1.0it/s]", "\n"]
    monkeypatch.setenv("FAKE_OUTPUT", "~".join(parts))
    slow_axolotl(place, "")
    status, seen = in_a_terminal(place.folder, "run", "stage1.yml")
    assert status == 0
    text = seen.decode()
    assert "10/40 00:30 left" in text
    assert "20/40 00:20 left" in text
    assert "loss 0.512 (answer 0.900)" in text
    assert "evaluation split" in text
    assert "━━━" in text
    assert "  note: no_such_key: nobody reads it\\x1b]0;evil" in text
    assert "\x1b]0;evil" not in text
    # What moves goes once it has ended; what stays is a line before and one after it.
    last = text.rpartition("\x1b[?25h")[2]
    assert re.fullmatch(
        r"\s*\S*training took 0:0\d, loss 0.512 \(answer 0.900\)\s*", re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", last)
    )


def test_ctrl_c_in_a_terminal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_OUTPUT", "\r 25%|██    | 10/40 [00:10<00:30, 1.0it/s]")
    slow_axolotl(place, "time.sleep(60)")
    began = time.monotonic()
    status, seen = in_a_terminal(place.folder, "run", "stage1.yml", stop_at=b"10/40")
    assert status == 130
    assert time.monotonic() - began < 30
    # The cursor is shown again, and how to go on is said after that.
    assert "Stopped. To go on from the last checkpoint" in seen.decode().rpartition("\x1b[?25h")[2]


def test_an_error_while_it_follows_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), followed("training", tmp_path / "x.log"):
        raise ValueError("no")
    assert sys.stderr is not None
