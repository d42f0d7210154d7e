"""Checks in processes of their own: one that crashes, hangs, or fills the memory ends alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.training.doctor import run, tables
from sftkey.training.doctor.checks import CHECKS, Check, chosen
from sftkey.training.doctor.run import examine
from sftkey.training.doctor.sizes import GIB, size_for
from sftkey.training.doctor.verdict import verdict
from sftkey.util.errors import UserError
from support.availability import REPOSITORY
from support.commands import SFTKEY, environment
from support.documented_json import follows_the_documentation

FAKES = '''
"""Stands in for the modules of the checks in each of their processes, which therefore need no torch."""
import os, signal, subprocess, sys, time, types

def module(name, **functions):
    sys.modules[f"sftkey.training.doctor.{name}"] = types.SimpleNamespace(**functions)

if "sftkey.training.doctor" in sys.orig_argv:
    from sftkey.training.doctor.task import Findings, Skipped

    def look(task):
        gpus = [{"name": "A GPU", "memory_bytes": 80 * 2**30, "capability": [9, 0]}] * int(os.environ.get("GPUS", 0))
        device = "cuda" if gpus else "cpu"
        return Findings({"device": device, "gpus": gpus, "cpus": 2, "versions": {"torch": "2", "peft": None}})

    def crash(task):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(task):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(os.environ["CHILD"], "w") as file:
            file.write(str(child.pid))
        time.sleep(600)

    def full(task):
        try:
            raise MemoryError("out of memory\\nand a long story")
        except MemoryError as error:
            raise ImportError("can't import model") from error

    def leave(task):
        print("\\x1b[31mred", flush=True)
        os._exit(7)

    def wrong(task):
        return Findings({"loss_error": 0.5}, ["the loss is 2"])

    def skip(task):
        raise Skipped("not here")

    def fine(task):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        place = os.environ["TORCH_EXTENSIONS_DIR"]
        return Findings({"loss_error": float("nan"), "extensions": place, "device": task.device, "seen": seen})

    module("machine", look=look)
    if "NUMERICS" in os.environ:
        module("numerics", plain=fine, packing=wrong)
    module("fakes", **{f.__name__: f for f in (crash, hang, full, leave, wrong, skip, fine)})
'''


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a `sitecustomize` that puts fakes in the place of what the checks run."""
    (tmp_path / "sitecustomize.py").write_text(FAKES, encoding="utf-8")
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    return tmp_path


def fake(name: str, function: str = "", **more: Any) -> Check:
    return Check(name, f"tries {name}", f"fakes:{function or name}", **more)


def statuses(report: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {result["check"]: (result["status"], result["reason"]) for result in report["checks"]}


def test_no_check_ends_another(fakes: Path) -> None:
    saved: list[int] = []
    told: list[str] = []
    checks = [fake(name) for name in ("crash", "full", "leave", "wrong", "skip")]
    checks += [fake("hang", seconds=5), fake("fine")]
    checks += [fake("gpu", "fine", gpu=True), fake("package", "fine", packages=("there_is_no_such_package",))]
    report = examine(checks, progress=told.append, save=lambda report: saved.append(len(report["checks"])))
    assert statuses(report) == {
        "crash": ("error", "its process was ended by signal 11 (SIGSEGV)"),
        "full": ("error", "ImportError: can't import model (from MemoryError: out of memory)"),
        "leave": ("error", "its process ended with code 7"),
        "wrong": ("failed", "the loss is 2"),
        "skip": ("skipped", "not here"),
        "hang": ("error", "ended after 5 s, its limit"),
        "fine": ("ok", None),
        "gpu": ("skipped", "needs a GPU"),
        "package": ("skipped", "needs the package there_is_no_such_package, which isn't installed"),
    }
    assert saved == list(range(1, 10))
    json.dumps(report, allow_nan=False)
    assert report["verdict"]["status"] == "failed"
    assert report["verdict"]["code"] == 1
    assert "not ok: crash, full, leave, wrong, hang" in report["verdict"]["text"]
    logs = {result["check"]: result.get("log", "") for result in report["checks"]}
    assert "Traceback" in logs["full"]
    assert r"\x1b[31mred" in logs["leave"]
    assert told[0] == "machine"
    assert told[-1].endswith("package: skipped: needs the package there_is_no_such_package, which isn't installed")
    child = int((fakes / "child").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "what the check had started still runs"
        time.sleep(0.1)
    assert "crash" in tables.text(report)


def test_a_gpu_is_handed_on_and_all_of_them_only_where_asked(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    recipes = [
        {"recipe": "small", "estimates": [GIB], "config": {}, "settings": {}, "packages": []},
        {"recipe": "large", "estimates": [100 * GIB], "packages": []},
        {"recipe": "sharded", "estimates": [100 * GIB, 70 * GIB, 50 * GIB], "every_gpu": True, "packages": []},
        {"recipe": "wide", "estimates": [200 * GIB, 100 * GIB], "every_gpu": True, "packages": []},
        {"recipe": "unknown", "skip": "no estimate"},
        {"recipe": "four", "estimates": [GIB], "packages": ["there_is_no_such_package"]},
    ]
    checks = [fake("one", "fine", gpu=True), fake("all", "fine", every_gpu=True), fake("memory", "fine", gpu=True)]
    report = examine(checks, recipes=recipes)
    assert report["size"] == "1.5b"
    assert [result["figures"].get("seen") for result in report["checks"]] == [
        "3",
        "3,5",
        "3",
        None,
        "3,5",
        None,
        None,
        None,
    ]
    assert report["checks"][0]["figures"]["device"] == "cuda"
    places = {result["figures"]["extensions"] for result in report["checks"][:3]}
    assert len(places) == 3, "a lock of one check's build could block another's"
    assert not any(Path(place).exists() for place in places)
    found = statuses(report)
    assert found["memory:small"] == ("ok", None)
    assert found["memory:large"] == (
        "skipped",
        "the estimate for one GPU without DeepSpeed is 100 GiB, and a GPU here has 80",
    )
    assert found["memory:sharded"] == ("ok", None)
    assert found["memory:wide"][1] == "the estimate for 2 GPUs with FSDP2 is 100 GiB, and a GPU here has 80"
    assert found["memory:unknown"] == ("skipped", "no estimate")
    assert found["memory:four"][0] == "skipped"
    assert report["verdict"]["status"] == "ok"


def test_what_does_not_fit_the_time_is_skipped_not_ok(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SHORTEST", 0.2)
    report = examine([fake("hang", seconds=60), fake("fine"), fake("gpu", gpu=True)], budget=6)
    assert statuses(report) == {
        "hang": ("skipped", "cut off: the budget of 6 s is used up"),
        "fine": ("skipped", "the budget of 6 s is used up"),
        "gpu": ("skipped", "needs a GPU"),
    }
    assert report["verdict"]["status"] == "incomplete"
    assert report["verdict"]["code"] == 3
    assert report["verdict"]["text"].endswith("the time was too short for 2")


def test_a_gpu_that_torch_does_not_see_fails(fakes: Path) -> None:
    with (fakes / "sitecustomize.py").open("a") as file:
        file.write(
            "\n    def blind(task):\n"
            "        findings = look(task)\n"
            "        findings.problems.append('there is a driver')\n"
            "        return findings\n"
            "    module('machine', look=blind)\n"
        )
    report = examine([fake("fine")])
    assert statuses(report) == {"machine": ("failed", "there is a driver"), "fine": ("ok", None)}
    assert report["verdict"]["text"].endswith("not ok: machine")


def test_torch_that_does_not_start_is_one_line(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (fakes / "sitecustomize.py").open("a") as file:
        file.write("\n    def look(task):\n        raise ImportError('libcudart')\n    module('machine', look=look)\n")
    with pytest.raises(UserError, match=r"torch doesn't start here \(ImportError: libcudart\)"):
        examine([fake("fine")])


@pytest.mark.parametrize(
    ("found", "planned", "expected"),
    [
        (["ok", "skipped"], 2, ("ok", 0)),
        (["ok", "failed"], 2, ("failed", 1)),
        (["error"], 1, ("failed", 1)),
        (["skipped", "skipped"], 2, ("incomplete", 3)),
        (["ok"], 2, ("incomplete", 3)),
        (["failed"], 2, ("failed", 1)),
        ([], 0, ("incomplete", 3)),
    ],
)
def test_the_verdict(found: list[str], planned: int, expected: tuple[str, int]) -> None:
    results = [{"check": str(number), "status": status} for number, status in enumerate(found)]
    reached = verdict(results, planned)
    assert (reached.status, reached.code) == expected


def test_the_choice_of_checks() -> None:
    assert [check.name for check in chosen("packing, plain")] == ["plain", "packing"]
    assert chosen(None) == list(CHECKS.values())
    with pytest.raises(UserError, match=r"there is no check 'packin'; did you mean packing\?"):
        chosen("plain,packin")
    with pytest.raises(UserError, match="names no check"):
        chosen(" ,")


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.name)
def test_every_check_has_its_function(check: Check) -> None:
    import ast

    module, _, function = check.function.partition(":")
    tree = ast.parse((Path(run.__file__).parent / f"{module}.py").read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("gigabytes", "size"), [(None, "tiny"), (6, "tiny"), (24, "0.5b"), (79, "1.5b"), (139, "1.5b")]
)
def test_the_size_follows_the_memory(gigabytes: int | None, size: str) -> None:
    assert size_for(gigabytes and gigabytes * GIB) == size


def gpu_run(*options: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tests" / "gpu" / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**extra), timeout=300, check=False)


WITHOUT_PYDANTIC = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pydantic":
            raise ModuleNotFoundError("there is no pydantic here", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_the_script_finds_a_loss_that_is_wrong(fakes: Path) -> None:
    """The whole way, with torch and without pydantic: the loss of the check's process is one per cent too large."""
    customize = fakes / "sitecustomize.py"
    customize.write_text(WITHOUT_PYDANTIC + customize.read_text("utf-8"), encoding="utf-8")
    with customize.open("a") as file:
        file.write(
            "    if 'numerics' in open(sys.orig_argv[-2]).read():\n"
            "        from sftkey.training import loss\n"
            "        right = loss.causal_loss\n"
            "        def wrong(*arguments, **options):\n"
            "            output = right(*arguments, **options)\n"
            "            output.loss = output.loss * 1.01\n"
            "            return output\n"
            "        loss.causal_loss = wrong\n"
        )
    place = fakes / "out.json"
    result = gpu_run("--only", "plain,flash", "--json", str(place), OMP_NUM_THREADS="1")
    assert result.returncode == 1, result.stdout + result.stderr
    report = json.loads(place.read_text("utf-8"))
    assert report["size"] == "tiny"
    assert report["model"]["vocab_size"] == 512
    found = statuses(report)
    assert found["plain"][0] == "failed"
    assert "the loss is" in str(found["plain"][1])
    assert found["flash"] == ("skipped", "needs a GPU")
    assert result.stdout.splitlines()[-1].startswith("failed: 0 of 1 checks")
    assert "[1/2] plain" in result.stderr


def test_the_command(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERICS", "fake")

    def doctor(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(sftkey, ["doctor", *options])
        return result.exit_code, result.stdout

    code, shown = doctor("--only", "plain", "--json")
    assert (code, json.loads(shown)["verdict"]["status"]) == (0, "ok")
    follows_the_documentation("doctor", json.loads(shown))
    code, shown = doctor("--only", "plain,packing,flash")
    assert code == 1
    rows = [line.split() for line in shown.splitlines()]
    assert ["packing", "failed"] in [row[:2] for row in rows]
    assert rows[-1][0] == "failed:"
    code, shown = doctor("--only", "flash,memory", "--recipe", "qwen2_5_7b_key")
    assert code == 3
    assert "memory:qwen2_5_7b_key" in shown
    assert shown.endswith("incomplete: nothing could be tried on this machine\n")
    assert doctor("--only", "nothing")[0] == 1
    assert [doctor("--budget", number)[0] for number in ("0", "nan", "inf", "1e400")] == [2] * 4
    code, shown = doctor("--list", "--json")
    assert [row["check"] for row in json.loads(shown)] == list(CHECKS)
    follows_the_documentation("doctor --list", json.loads(shown))


def test_the_tables_of_costs_and_memory() -> None:
    def cost(seconds: float, peak: float) -> dict[str, Any]:
        one = {"seconds": seconds, "tokens_per_second": 8192 / seconds, "peak_bytes": peak * GIB, "waits": 1}
        return {"labels_5_percent": one, "labels_100_percent": one}

    checks = [
        ("cost-standard", cost(0.5, 20)),
        ("cost-sftkey", cost(0.25, 5)),
        ("cost-liger", {}),
        ("memory:mine", {"estimate_bytes": 21 * GIB, "peak_bytes": 18.5 * GIB}),
        ("trainer", {"waits": [3, 2], "own_waits": [4, 1]}),
        ("fsdp2", {"processes": 2, "loss_error": 1e-5, "gradient_error": 2e-3}),
    ]
    results = [
        {"check": name, "status": "ok" if figures else "skipped", "seconds": 1.0, "reason": None, "figures": figures}
        for name, figures in checks
    ]
    gpu = {"name": "NVIDIA H100", "memory_bytes": 80 * GIB}
    report = {
        "machine": {"gpus": [gpu], "cpus": 16, "versions": {"torch": "2.11.0", "peft": None}},
        "size": "1.5b",
        "model": {"model_type": "qwen2", "vocab_size": 151936, "length": 512},
        "checks": results,
        "verdict": {"status": "ok", "text": "fine"},
    }
    rows = [line.split() for line in tables.text(report).splitlines()]
    assert ["NVIDIA", "H100", "(80", "GiB),", "16", "CPUs"] in rows
    assert ["standard", "5%", "0.5000", "1.00", "16,384", "20.00", "1.00", "1"] in rows
    assert ["sftkey", "100%", "0.2500", "0.50", "32,768", "5.00", "0.25", "1"] in rows
    assert ["mine", "21.0", "18.5"] in rows
    assert "waits of a micro-batch: 2, without sftkey 1" in tables.text(report)
    assert "processes: 2" in tables.text(report)
    assert not any(row[:1] == ["liger"] for row in rows)
    assert rows[-1] == ["ok:", "fine"]


def test_the_script_takes_no_wrong_call(fakes: Path) -> None:
    listed = gpu_run("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(CHECKS)
    assert (
        gpu_run("--only", "plan").stderr
        == "Error: --only: there is no check 'plan'; did you mean plain? --list shows all\n"
    )
    assert gpu_run("--size", "9b").returncode == 2
    assert "there is no shipped recipe 'none'" in gpu_run("--recipe", "none").stderr


@pytest.mark.slow
def test_the_command_on_this_machine() -> None:
    """Without fakes: all that a CPU can try in a time that a test has."""
    command = [*SFTKEY, "doctor", "--json", "--size", "tiny", "--only", "fsdp2,compile,memory"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    found = statuses(report)
    assert found["fsdp2"] == ("ok", None)
    assert next(r for r in report["checks"] if r["check"] == "fsdp2")["figures"]["processes"] == 2
    assert found["compile"][0] in ("ok", "skipped")
    assert found["memory:qwen3_8b_lora_stage2"] == ("skipped", "needs a GPU")
    assert "[1/" in result.stderr
