"""Commands end with the run, however that ends, and stop in order when asked to."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sftkey.stages.launch import Launch, Runner, Stopped, path_with_own_commands
from sftkey.stages.lifeline import VARIABLE, end_with_the_run, lifeline

# A launcher, as accelerate is one: it starts the training in a process of its own and waits. The training watches the run.
LAUNCHER = """
import subprocess, sys
training = '''
import os, sys, time
from sftkey.stages.lifeline import end_with_the_run
end_with_the_run()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
'''
sys.exit(subprocess.call([sys.executable, "-c", training, sys.argv[1]]))
"""

RUN = """
import sys
from pathlib import Path
from sftkey.stages.launch import Runner
with Runner() as runner:
    runner.run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_kill_9_of_the_run_ends_what_its_launcher_started(tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, LAUNCHER, str(tmp_path / "pid")])
    training = psutil.Process(wait_for(tmp_path / "pid"))
    launcher = training.parent()
    assert launcher is not None
    assert launcher.ppid() == run.pid
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs([training, launcher], timeout=60)
    assert not alive


def test_kill_9_of_the_run_ends_what_the_training_started(tmp_path: Path) -> None:
    training = LAUNCHER.replace(
        "time.sleep(60)", "import subprocess; subprocess.call([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    run = subprocess.Popen([sys.executable, "-c", RUN, training, str(tmp_path / "pid")])
    process = psutil.Process(wait_for(tmp_path / "pid"))
    deadline = time.monotonic() + 60
    while not (workers := process.children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs([process, *workers], timeout=20)
    assert not alive


def test_no_run_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    monkeypatch.delenv(VARIABLE, raising=False)
    end_with_the_run(lambda: ended.append(True))
    monkeypatch.setenv(VARIABLE, lifeline()[VARIABLE])
    end_with_the_run(lambda: ended.append(True))
    time.sleep(1.2)
    assert not ended
    # The same process id at another time is another process.
    monkeypatch.setenv(VARIABLE, f"{os.getpid()}:1.00:another-machine")
    end_with_the_run(lambda: ended.append(True))
    time.sleep(0.3)
    assert not ended
    monkeypatch.setenv(VARIABLE, f"{os.getpid()}:1.00:{socket.gethostname()}")
    end_with_the_run(lambda: ended.append(True))
    deadline = time.monotonic() + 30
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended


def test_status_and_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    with Runner() as runner:
        assert runner.run([sys.executable, "-c", "print('one'); raise SystemExit(3)"], log=log) == 3
        assert (
            runner.run([sys.executable, "-c", "import os; print('two', flush=True); os.kill(os.getpid(), 9)"], log=log)
            == -9
        )
    assert log.read_text() == "one\ntwo\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_as_ctrl_c_and_the_command_may_finish(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time, os\n"
        "def stop(*_):\n"
        "    time.sleep(0.3); open(sys.argv[1] + '.saved', 'w').write('x'); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    _send_later(tmp_path / "pid", number, 1)
    with Runner() as runner:
        with pytest.raises(Stopped):
            runner.run([sys.executable, "-c", code, str(tmp_path / "pid")])
        with pytest.raises(Stopped):
            runner.run([sys.executable, "-c", "raise SystemExit(0)"])
    assert (tmp_path / "pid.saved").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# As started by a service or `nohup ... &`: which signals are ignored, and which are blocked.
INHERITED = """
import signal, sys
from sftkey.stages.launch import Runner, Stopped
with Runner() as runner:
    try:
        runner.run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
    except Stopped:
        sys.exit(130)
"""
SAVES = """
import os, sys, time
from pathlib import Path
place = Path(sys.argv[1])
ignored = next(line for line in open("/proc/self/status") if line.startswith("SigIgn"))
place.with_suffix(".ignored").write_text(ignored.split()[1])
try:
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    time.sleep(60)
except KeyboardInterrupt:
    place.with_suffix(".saved").write_text("x")
"""
STOP = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_inherited_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    def ignoring(numbers: tuple[int, ...], blocked: tuple[int, ...]) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    subsets = [(), *itertools.combinations(STOP, 1), *itertools.combinations(STOP, 2), STOP]
    runs = []
    for number, (ignored, sent) in enumerate(itertools.product(subsets, (signal.SIGINT, signal.SIGTERM))):
        place = tmp_path / str(number)
        process = subprocess.Popen(
            [sys.executable, "-c", INHERITED, SAVES, str(place)],
            preexec_fn=functools.partial(ignoring, ignored, [signal.SIGHUP] if number % 2 else []),
        )
        runs.append((place, process, ignored, sent))
    for place, process, ignored, sent in runs:
        command = psutil.Process(wait_for(place))
        if signal.SIGHUP in ignored:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert command.is_running(), "a terminal that hangs up ends nothing"
        process.send_signal(sent)
        assert process.wait(timeout=60) == 130, (ignored, sent)
        assert place.with_suffix(".saved").exists(), (ignored, sent)
        mask = int(place.with_suffix(".ignored").read_text(), 16)
        assert not any(mask & 1 << one - 1 for one in STOP), (ignored, sent)


def test_nohup(tmp_path: Path) -> None:
    place = tmp_path / "pid"
    shell = 'nohup "$@" > /dev/null 2>&1 & echo $!; wait $!; echo $?'
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-c", INHERITED, SAVES, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    run = int(process.stdout.readline())
    wait_for(place)
    os.kill(run, signal.SIGTERM)
    assert process.stdout.readline() == "130\n"
    assert place.with_suffix(".saved").exists()
    process.wait()


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, os\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    _send_later(tmp_path / "pid", signal.SIGINT, 2)
    with Runner() as runner, pytest.raises(Stopped):
        runner.run([sys.executable, "-c", code, str(tmp_path / "pid")])


def _send_later(path: Path, number: signal.Signals, times: int) -> None:
    """From another process, as a terminal would, once the command runs."""
    code = (
        "import os, sys, time\n"
        "while not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()): time.sleep(0.05)\n"
        "for _ in range(int(sys.argv[4])): os.kill(int(sys.argv[2]), int(sys.argv[3])); time.sleep(0.5)\n"
    )
    subprocess.Popen([sys.executable, "-c", code, str(path), str(os.getpid()), str(int(number)), str(times)])


def test_train_command() -> None:
    assert Launch().train_command("a.yml", ["--num-epochs", "1"]) == ["axolotl", "train", "a.yml", "--num-epochs", "1"]
    launch = Launch("torchrun", ("--nproc_per_node", "8"))
    assert launch.train_command("a.yml") == [
        *("axolotl", "train", "a.yml", "--launcher", "torchrun", "--", "--nproc_per_node", "8")
    ]


@pytest.mark.parametrize(
    ("arguments", "machines", "rendezvous"),
    [
        ("", 1, None),
        ("--nproc_per_node 8", 1, None),
        ("--nnodes 2 --rdzv_endpoint a:1", 2, "a:1"),
        ("--nnodes=1:4 --rdzv-id=7 --rdzv-endpoint=a:1", 4, "7 a:1"),
        ("--num_machines 2 --main_process_ip 10.0.0.1 --machine_rank 1", 2, "10.0.0.1"),
        ("--nnodes 2", 2, "several machines"),
    ],
)
def test_machines(arguments: str, machines: int, rendezvous: str | None) -> None:
    launch = Launch("torchrun", tuple(arguments.split()))
    assert (launch.machines, launch.rendezvous) == (machines, rendezvous)


def test_own_commands_are_found() -> None:
    own = str(Path(sys.executable).parent)
    assert path_with_own_commands({"PATH": "/usr/bin"}) == f"{own}{os.pathsep}/usr/bin"
    assert path_with_own_commands({"PATH": f"/first:{own}"}) == f"/first:{own}"


def test_stdout_of_the_commands_can_go_elsewhere() -> None:
    read, write = os.pipe()
    with Runner(stdout=write) as runner:
        assert runner.run([sys.executable, "-c", "print('trained')"]) == 0
    os.close(write)
    with open(read, encoding="utf-8") as file:
        assert file.read() == "trained\n"
