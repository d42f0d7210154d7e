"""`make demo`: trains both stages of the demo through the real commands, evaluates them, and says what happened.

No network and no GPU are needed. Everything goes below ``outputs/demo``; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path("outputs/demo")
TASKS = Path(__file__).parent / "tasks"

STAGES = (
    ("Stage 1, SFT-Tag (whole response)", "demo_stage1.yml", "stage1", "sftkey_demo"),
    ("Stage 2, SFTKey-Tag (answer only)", "demo_stage2.yml", "stage2", "sftkey_demo"),
)
OTHERS = (
    ("SFT (untagged)", "demo_sft.yml", "sft", "sftkey_demo_plain"),
    ("Key-Tag (answer only, from the base model)", "demo_key.yml", "key", "sftkey_demo"),
)


def run(title: str, command: list[str], log: Path) -> None:
    """Run a command, its output in a log file; show the end of the log and stop if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(ROOT.resolve() / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = time.monotonic()
    print(f"{title}\n  {' '.join(command)}", flush=True)
    with open(log, "w", encoding="utf-8") as output:
        status = subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        print("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-30:]))
        sys.exit(f"{command[0]} failed with status {status}; the whole log is in {log}")
    print(f"  {time.monotonic() - started:.0f} s, log in {log}", flush=True)


def evaluate(output_dir: Path, task: str) -> dict[str, Any]:
    """Evaluate a checkpoint with the real ``lm_eval``, once; its results as lm-eval wrote them."""
    folder = output_dir / "eval"
    if not list(folder.rglob("results_*.json")):
        command = ["lm_eval", "--model", "hf", "--model_args", f"pretrained={output_dir}", "--device", "cpu"]
        command += ["--include_path", str(TASKS), "--tasks", task, "--apply_chat_template", "--batch_size", "64"]
        command += ["--output_path", str(folder), "--log_samples"]
        run(f"Evaluating {output_dir}", command, ROOT / "logs" / f"eval_{output_dir.name}.log")
    (results,) = sorted(folder.rglob("results_*.json"))[-1:]
    return json.loads(results.read_text(encoding="utf-8"))["results"][task]


def sample(output_dir: Path) -> tuple[str, str, str]:
    """Question, output and reference of the first evaluated item."""
    (path,) = sorted((output_dir / "eval").rglob("samples_*.jsonl"))[-1:]
    item = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    return item["doc"]["question"], item["resps"][0][0], item["target"]


def losses(output_dir: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Losses per segment on the test split, before the first and after the last step."""
    history = json.loads((output_dir / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    return evaluations[0], evaluations[-1]


def main() -> None:
    """Set up, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="also train the other strategies: SFT and Key-Tag")
    stages = [*STAGES, *(OTHERS if parser.parse_args().all else ())]
    from setup_demo import set_up

    set_up(ROOT)
    for title, recipe, name, _ in stages:
        if not (ROOT / name / "sftkey_stage.json").exists():
            run(title, ["axolotl", "train", f"recipes/{recipe}"], ROOT / "logs" / f"train_{name}.log")
    scores = {name: evaluate(ROOT / name, task) for _, _, name, task in stages}
    run(
        "The report",
        ["axolotl", "sftkey", "report", str(ROOT), "-o", str(ROOT / "report")],
        ROOT / "logs" / "report.log",
    )

    print("\nLoss per segment on unseen questions (nats per token), before -> after")
    print(f"{'':44}{'thinking':>18}{'answer':>18}{'format':>18}")
    for title, _, name, _ in stages:
        before, after = losses(ROOT / name)
        cells = [
            f"{before[f'eval_loss_{key}']:.3f} -> {after[f'eval_loss_{key}']:.3f}"
            for key in ("thinking", "answer", "format")
        ]
        print(f"{title:44}" + "".join(f"{cell:>18}" for cell in cells))
    print("\nOne output of each")
    for title, _, name, _ in stages:
        question, output, reference = sample(ROOT / name)
        print(f"{title}\n  {question}\n  {output}\n  (reference: {reference})")
    print("\nEvaluation on 200 unseen questions (lm_eval)")
    print(f"{'':44}{'acc':>8}{'fmt':>8}{'score':>8}")
    for title, _, name, _ in stages:
        row = "".join(f"{scores[name][f'{metric},none']:8.3f}" for metric in ("acc", "fmt", "score"))
        print(f"{title:44}{row}")
    print(f"\nCheckpoints: {', '.join(str(ROOT / name) for _, _, name, _ in stages)}")
    print(f"Report: {ROOT / 'report' / 'index.html'}")


if __name__ == "__main__":
    main()
