"""Say which disk is full, whatever library met it."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

# Of safetensors, PyTorch's zip writer and Arrow, which tell the cause in words only.
_SIGNS = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|StorageFull|os error 28\b|file write failed|"
    r"inline_container\.cc.*(unexpected pos|fail)"
)
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_watched: list[Path] = []


class DiskFull(OSError):
    """A file could not be written for want of room; the message says where."""

    def __str__(self) -> str:
        return str(self.args[1])


def watch(*folders: str | Path) -> None:
    """Name folders that this process writes to: the fullest of them is meant where an error names no file."""
    _watched.extend(Path(folder) for folder in folders)


def full_disk(error: BaseException, folders: Iterable[Path] = ()) -> DiskFull | None:
    """The error that says which disk is full, where that is what an error comes from.

    Args:
        error: What was raised; what it was raised from counts too.
        folders: Where it was written to, as far as that is known.
    """
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        if isinstance(one, DiskFull):
            return one
        seen.append(one)
        one = one.__cause__ or one.__context__
    meant = [
        one for one in seen if (isinstance(one, OSError) and one.errno in _NUMBERS) or _SIGNS.search(str(one)[:10_000])
    ]
    if not meant:
        return None
    named = [Path(os.fsdecode(one.filename)) for one in meant if isinstance(one, OSError) and one.filename]
    folder = _fullest([*named, *folders] or [*_watched, Path.cwd(), Path(os.environ.get("TMPDIR", "/tmp"))])
    usage, mount = shutil.disk_usage(folder), folder
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    return DiskFull(
        errno.ENOSPC,
        f"no space left for {folder}: the disk at {mount} has {usage.free:,} of {usage.total:,} bytes free "
        f"({str(meant[0]).splitlines()[0][:120]}). What was whole before is so still; make room there, and give the same "
        "command again",
    )


def _fullest(paths: Iterable[Path]) -> Path:
    places = []
    for path in paths:
        place = path.absolute()
        while not place.is_dir():
            place = place.parent
        places.append(place)
    return min(places, key=lambda place: shutil.disk_usage(place).free)
