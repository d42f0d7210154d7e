"""Save a checkpoint so that it is whole or known not to be, and remove the oldest only once a newer one is whole."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from sftkey.stages.checkpoints import CHECKPOINT_FILE, CheckpointRecord, survey
from sftkey.stages.manifest import identity, record_files
from sftkey.stages.marker import RunFile
from sftkey.util.files import write_atomically

_REMOVING = ".removing-"


class Saving:
    """The checkpoints that one run saves; used by its first process.

    `begin`, then the trainer writes its files, then `complete`, which reads and syncs them in a thread of its own: training
    goes on meanwhile.

    Args:
        run: The run file of the run.
        limit: ``save_total_limit``; ``None`` keeps all.
    """

    def __init__(self, run: RunFile, limit: int | None = None) -> None:
        self._run = run
        self._limit = limit
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, checkpoint: Path) -> None:
        """Note whose the checkpoint is, and that it isn't whole; waits for the one before."""
        self.finish()
        write_atomically(checkpoint / CHECKPOINT_FILE, CheckpointRecord(run=self._id).model_dump())

    def abandon(self, checkpoint: Path) -> None:
        """Remove a checkpoint that could not be saved: a full disk has room for it then."""
        remove(checkpoint)

    def complete(self, checkpoint: Path, *, best: str | None = None) -> None:
        """Vouch for a checkpoint that every process has written its part of.

        Args:
            checkpoint: The checkpoint.
            best: A checkpoint that is kept whatever the limit is.
        """
        self.finish()

        def vouch() -> None:
            try:
                names = (path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
                files = record_files(checkpoint, (name for name in names if name != CHECKPOINT_FILE), durable=True)
                record = CheckpointRecord(run=self._id, files=files, sha256=identity(files))
                write_atomically(checkpoint / CHECKPOINT_FILE, record.model_dump())
                self._rotate(checkpoint.parent, best)
            except BaseException as error:  # raised by `finish`, where somebody can see it
                self._error = error

        # No daemon: it comes to its end when training is stopped.
        self._thread = threading.Thread(target=vouch, name="sftkey-checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            OSError: Its files, or the record of them, could not be read or written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def keep_only(self, best: Path) -> None:
        """Remove all checkpoints of this run but the best."""
        for path in self._own(best.parent):
            if path.resolve() != best.resolve():
                remove(path)

    def _rotate(self, output_dir: Path, best: str | None) -> None:
        """Remove the oldest checkpoints of this run beyond the limit, but neither the newest nor the best."""
        own = self._own(output_dir)
        if not self._limit or self._limit < 0 or len(own) <= self._limit:
            return
        kept = {path.resolve() for path in (own[-1], *([Path(best)] if best else []))}
        surplus = len(own) - max(self._limit, len(kept))
        for path in [path for path in own if path.resolve() not in kept][:surplus]:
            remove(path)

    def _own(self, output_dir: Path) -> list[Path]:
        found = survey(output_dir, self._run, {"save_only_model": True}, 1)
        return [checkpoint.path for checkpoint in found if checkpoint.fault is None]

    @property
    def _id(self) -> str:
        return str(self._run.id)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint at once, as far as others can see: what a kill -9 leaves of it isn't taken for one."""
    place = checkpoint.with_name(f"{_REMOVING}{checkpoint.name}")
    shutil.rmtree(place, ignore_errors=True)
    checkpoint.rename(place)
    shutil.rmtree(place)


def remove_leftovers(output_dir: Path) -> None:
    """Remove the rest of checkpoints that a killed run was removing."""
    for place in output_dir.glob(f"{_REMOVING}checkpoint-*"):
        shutil.rmtree(place)
