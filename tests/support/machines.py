"""Machines on one: network, host name, processes and mounts of their own, in namespaces that end with the test."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from support.availability import skip_or_fail
from support.commands import environment

NETWORK = "198.51.100"
"""Addresses for documentation: no machine has them outside the namespaces."""

_INSIDE = ("--user", "--net", "--uts", "--mount", "--pid", "--preserve-credentials")


class Machine:
    """A host with a name and an address; commands run in it until it is switched off.

    Args:
        number: Of the host, from 1.
        room: The process that holds the namespaces in which the machines are.
        folder: Where the files of all machines are; those of this one are in ``folder/machineN``.
    """

    def __init__(self, number: int, room: subprocess.Popen[str], folder: Path) -> None:
        self.name, self.address = f"machine{number}", f"{NETWORK}.{number}"
        self.folder = folder / self.name
        self._unplug = (_enter(room), f"ip link delete port{number}")
        self._holder = _hold(
            *_enter(room), "unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"
        )
        (self._first,) = psutil.Process(self._holder.pid).children()
        cable = f"ip link add port{number} type veth peer name cable netns {self._first.pid}"
        _script(_enter(room), f"{cable}; ip link set port{number} master switch up")
        self.run(
            f"hostname {self.name}; mount --bind {folder / 'hosts'} /etc/hosts; ip link set lo up; "
            f"ip addr add {self.address}/24 dev cable; ip link set cable up"
        )

    def run(self, script: str) -> None:
        """Run a shell script in it as root."""
        _script(self._inside(), script)

    def start(self, *command: str | Path, log: Path, **extra: str) -> subprocess.Popen[bytes]:
        """Start a command in its folder; what it says is added to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self._inside(), "sh", "-ec", 'cd "$0"; exec "$@"', str(self.folder), *map(str, command)],
                env=environment(OMP_NUM_THREADS="1", HF_DATASETS_CACHE=str(self.folder / "cache"), **extra),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        """Kill -9 of the process whose command line holds `name`."""
        self._process(name).kill()

    def interrupt(self, name: str) -> None:
        """Ctrl-C for it."""
        self._process(name).send_signal(signal.SIGINT)

    def _process(self, name: str) -> psutil.Process:
        own = Path(f"/proc/{self._first.pid}/ns/pid").readlink()
        found = [
            one for one in psutil.process_iter() if name in " ".join(_command_line(one)) and _namespace(one) == own
        ]
        (process,) = (one for one in found if one.name().startswith("python"))
        return process

    def switch_off(self) -> None:
        """End all that runs in it at once, without a word to the other machines, as a power cut does."""
        if self._holder.poll() is None:
            _script(*self._unplug)
            self._first.kill()
            self._holder.wait()

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self._first.pid}", *_INSIDE)


class Network:
    """The room with the switch that the machines are plugged into."""

    def __init__(self, room: subprocess.Popen[str], folder: Path) -> None:
        self._room, self._folder, self._machines = room, folder, list[Machine]()
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{number} machine{number}\n" for number in range(1, 10))
        )
        _script(_enter(room), "ip link add name switch type bridge; ip link set switch up")

    def machine(self, number: int) -> Machine:
        """Switch on a machine; its folder is there."""
        self._machines.append(Machine(number, self._room, self._folder))
        return self._machines[-1]

    def switch_off(self) -> None:
        """Switch off all machines."""
        for machine in self._machines:
            machine.switch_off()


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for machines whose files are in `folder`."""
    namespaces = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--kill-child", "--fork")
    if subprocess.run([*namespaces, "ip", "link"], capture_output=True, check=False).returncode:
        skip_or_fail("needs user and network namespaces, and the command ip")
    room = _hold(*namespaces)
    machines = Network(room, folder)
    try:
        yield machines
    finally:
        machines.switch_off()
        room.kill()
        room.wait()


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _namespace(process: psutil.Process) -> Path | None:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/ns/pid").readlink()
    return None


def _hold(*namespaces: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [*namespaces, "sh", "-c", "echo up; exec sleep infinity"], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    return holder


def _enter(room: subprocess.Popen[str]) -> tuple[str, ...]:
    (inside,) = psutil.Process(room.pid).children()
    return ("nsenter", f"--target={inside.pid}", "--user", "--net", "--mount", "--preserve-credentials")


def _script(enter: tuple[str, ...], script: str) -> None:
    result = subprocess.run([*enter, "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
