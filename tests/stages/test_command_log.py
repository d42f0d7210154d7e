"""What is read from a command's log while the command runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.stages.command_log import Bar, LogFollower, Losses, Warned, last_error, last_lines, read

# As Axolotl 0.19, transformers 5.16, lm-eval 0.4.11 and huggingface_hub write them.
STEP = "  2%|▏         | 7/400 [00:01<01:12,  5.43it/s]"
LOSS = (
    "{'loss': '5.515', 'grad_norm': '6.299', 'loss_thinking': '5.708', 'tokens_thinking': 3200, 'loss_answer': '5e-05'}"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (STEP, Bar("", 7, 400, "7/400", "01:12")),
        ("  0%|          | 0/400 [00:00<?, ?it/s]", Bar("", 0, 400, "0/400", "?")),
        (
            "Running generate_until requests:  32%|███▎      | 65/200 [00:02<00:03, 36.61it/s]",
            Bar("Running generate_until requests", 65, 200, "65/200", "00:03"),
        ),
        (
            "Dropping Invalid Sequences (<None or >128) (num_proc=2): 100%|██████████| 4000/4000 [00:00<00:00, 9 examples/s]",
            Bar("Dropping Invalid Sequences (<None or >128) (num_proc=2)", 4000, 4000, "4000/4000", "00:00"),
        ),
        (
            "model.safetensors:  35%|███▌      | 1.2G/3.44G [00:10<00:20, 110MB/s]",
            Bar("model.safetensors", 1.2e9, 3.44e9, "1.2G/3.44G", "00:20"),
        ),
        ("Generating train split: 4000 examples [00:00, 237688.12 examples/s]", None),
        ("  0%|          | 0/0 [00:00<?, ?it/s]", None),
        (LOSS, Losses({"loss": 5.515, "loss_thinking": 5.708, "loss_answer": 5e-05}, evaluated=False)),
        ("{'loss': 0.25, 'epoch': 1.0}", Losses({"loss": 0.25}, evaluated=False)),
        ("{'eval_loss': '6.392', 'eval_loss_answer': '6.33'}", Losses({"loss": 6.392, "loss_answer": 6.33}, evaluated=True)),
        ("{'train_runtime': '63.1'}", None),
        ("{'loss': '.'}", None),
        ("{'loss': 1.2.3}", Losses({"loss": 1.2}, evaluated=False)),
        ("[2026-11-26 06:55:08,487] [INFO] [axolotl.train] Starting trainer...", None),
        ("[2026-11-26 06:55:08,487] [WARNING] [torchao] Failed to load a library", None),
        (
            "[2026-11-26 06:55:08,487] [WARNING] [sftkey.axolotl.plugin] no_such_key: nobody reads it",
            Warned("no_such_key: nobody reads it"),
        ),
        (
            "[2026-11-26 06:55:08,487] [WARNING] [sftkey.axolotl.plugin._log_once:217] [PID:12] [RANK:0] that: [x]",
            Warned("that: [x]"),
        ),
        (
            "2026-11-26:06:57:30 WARNING  [tasks.sftkey:79] sftkey_demo: no training prompt",
            Warned("sftkey_demo: no training prompt"),
        ),
    ],
)  # fmt: skip
def test_a_line(line: str, expected: object) -> None:
    assert read(line) == expected


@given(
    st.text(st.sampled_from("{'los:_an1.e+-%|/[]<kMG \t\x1b\rWARNIsftkey."))
    | st.text()
    | st.text("0123456789.e+-naif'", max_size=20).map(lambda value: f"{{'loss': {value}")
)
def test_any_line(line: str) -> None:
    found = read(line)
    assert not isinstance(found, Bar) or found.total > 0


@given(
    parts=st.lists(st.sampled_from(["\r", "\n", "\r\n", "é", "\x1b[A", "\x1b[31m", STEP, "warn", " "]), max_size=30),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_lines_do_not_depend_on_when_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], cuts: list[int]
) -> None:
    log = tmp_path_factory.mktemp("log") / "train.log"
    log.write_text("an earlier run\n")
    whole, follower = "".join(parts).encode(), LogFollower(log)
    seen: list[tuple[str, bool]] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True):
        with log.open("ab") as file:
            file.write(whole[start:end])
        seen += [line for line in follower.lines(last=end is None) if line[1]]
    at_once = LogFollower(log)
    at_once._position = len("an earlier run\n")
    assert seen == [line for line in at_once.lines(last=True) if line[1]]
    assert not any("\x1b" in line or "\r" in line for line, _ in seen)


def test_a_file_that_is_written_again_and_one_that_is_deleted(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("an earlier run\n")
    follower = LogFollower(log)
    with log.open("a") as file:
        file.write("half of a")
    assert list(follower.lines()) == [("half of a", False)]
    log.write_text("new\n")
    assert list(follower.lines()) == [("new", True)]
    log.unlink()
    assert list(follower.lines()) == []


def test_a_file_that_is_not_there_yet_and_a_very_long_line(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path / "train.log")
    assert list(follower.lines()) == []
    (tmp_path / "train.log").write_text("x" * 5_000_000)
    assert [len(line) for line, _ in follower.lines()] == [4_000]


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    assert "can't be read" in last_error(log)
    log.write_text(
        "a\n\x1b[31msftkey: output_dir is in use\x1b[0m\nsubprocess.CalledProcessError: died\n\n" + STEP + "\r\n"
    )
    assert last_lines(log)[-3:] == ["sftkey: output_dir is in use", "subprocess.CalledProcessError: died", STEP.strip()]
    assert last_error(log) == "sftkey: output_dir is in use"
