"""States that are whole or absent: in folders, or below any URL that fsspec knows.

A place is either. In a folder a state is written aside, checksummed and renamed; what is deleted is renamed
first. An object store renames nothing: there the files come first and their checksums last, and what has none
is no checkpoint; what is deleted loses them last, and until then is known to lack files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.engines import remote
from sweep.engines.remote import is_url
from sweep.errors import CheckpointError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_SUMS = "checksums.json"
# What is written, what is deleted and a worker's scratch folder are called while they are in use.
_ASIDE = re.compile(r"\..+\.\d+")
_SCRATCH = "sweep-state-"


def own(target: Path) -> Path:
    """A path beside the target that no other process uses, of whatever machine shares the folder."""
    return target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}")


def _going(target: Path) -> Path:
    """What it is called while it is deleted: half of it is no state."""
    return own(target.with_name(f"{target.name}.going"))


@contextmanager
def writing(target: str | Path) -> Iterator[Path]:
    """An empty folder to fill; on leaving without an error it becomes `target`, replacing an older one.

    Raises OSError where a disk is full, TrainingError where a URL can't be written.
    """
    if is_url(target):
        with _scratch() as aside:
            yield aside
            _add_sums(aside)
            remote.upload(aside, str(target), last=_SUMS)
        return
    target = Path(target)
    aside = own(target)
    going = _going(target)
    for left in (aside, going):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        _add_sums(aside)
        with suppress(FileNotFoundError):
            target.replace(going)
        aside.replace(target)
    finally:
        for left in (aside, going):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def fetched(place: str | Path) -> Iterator[Path]:
    """The state's folder, or for a URL a copy that goes afterwards, each file as it was written.

    Raises CheckpointError where one is not, TrainingError where a URL can't be reached.
    """
    if not is_url(place):
        yield verified(Path(place))
        return
    with _scratch() as folder:
        (folder / _SUMS).write_bytes(_read_sums(str(place)))
        try:
            for name in _sums(folder, str(place)):
                remote.download(f"{place}/{name}", folder / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{place} lacks a file; the checkpoint can't be used.") from error
        yield verified(folder, told=str(place))


def verified(folder: Path, *, told: str | None = None) -> Path:
    """The folder, once every file has been found as it was written. Raises CheckpointError.

    told: what errors call it.
    """
    told = told or str(folder)
    for name, expected in _sums(folder, told).items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise CheckpointError(
                f"{told}/{name} is missing or is not what was written; the checkpoint can't be used."
            )
    return folder


def whole(place: str) -> str:
    """The place, once its files were found: as they were written, but of a URL only that they are there.

    To fetch all of them is for who goes on from it. Raises CheckpointError.
    """
    if not is_url(place):
        verified(Path(place))
        return place
    sums, found = _parsed(_read_sums(place), place), remote.files(place)
    if missing := [name for name in sums if name not in found]:
        raise CheckpointError(f"{place}/{missing[0]} is missing; the checkpoint can't be used.")
    return place


def is_broken(place: str) -> bool:
    """Whether it is not whole, looked at file by file wherever it lies."""
    try:
        with fetched(place):
            return False
    except CheckpointError:
        return True


def latest(place: str) -> tuple[int, str] | None:
    """Examples seen and place of the newest whole state among `<place>/<examples>`, if there is one."""
    for number in _numbers(place):
        if not is_broken(state := f"{place}/{number}"):
            return number, state
    return None


def keep_newest(place: str, count: int) -> None:
    """Remove all but so many of the states among `<place>/<examples>`."""
    for number in _numbers(place)[count:]:
        remove(f"{place}/{number}")


def remove(place: str) -> bool:
    """Delete a checkpoint; whether nothing is left of it. Interrupted half-way, it is none any more.

    A folder that is none stays: a storage must not say what else is deleted.
    """
    if is_url(place):
        try:
            _read_sums(place)
        except CheckpointError:
            return not remote.files(place)
        remote.remove(place, last=_SUMS)
        return True
    folder, going = Path(place), _going(Path(place))
    if (folder / _SUMS).is_file():
        with suppress(OSError):
            folder.replace(going)
    shutil.rmtree(going, ignore_errors=True)
    return not (folder.exists() or going.exists())


def files(place: str) -> dict[str, int]:
    """The bytes of every file below the place, by path from there. What vanishes meanwhile is left out."""
    if is_url(place):
        return remote.files(place)
    found = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            try:
                found[path.relative_to(place).as_posix()] = path.stat().st_size
            except FileNotFoundError:
                continue
    return found


def clear_leftovers(folder: Path, *, deep: bool = True) -> None:
    """Remove what killed processes were writing or deleting: nobody else may be there.

    deep: in all folders below, too.
    """
    for path in list(folder.rglob(".*") if deep else folder.glob(".*")):
        if path.is_dir() and _ASIDE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def export_adapter(place: str, target: Path) -> Path:
    """The checkpoint's adapter alone, in PEFT's layout, as `target`.

    Raises CheckpointError if it holds none.
    """
    with fetched(place) as folder:
        if not holds_adapter(folder):
            raise CheckpointError(f"{place} holds no adapter. Use an engine that trains one.")
        with writing(target) as aside:
            for name in ADAPTER_FILES:
                shutil.copy2(folder / name, aside / name)
    return target


def holds_adapter(place: str | Path) -> bool:
    """Whether there is one, in PEFT's layout."""
    return set(ADAPTER_FILES) <= files(str(place)).keys()


def _numbers(place: str) -> list[int]:
    """Examples seen of the states there, whole or not, the newest first."""
    names = {path.partition("/")[0] for path in files(place)}
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _add_sums(folder: Path) -> None:
    (folder / _SUMS).unlink(missing_ok=True)
    sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / _SUMS).write_text(json.dumps(sums, indent=1))


def _sums(folder: Path, told: str) -> dict[str, str]:
    try:
        return _parsed((folder / _SUMS).read_bytes(), told)
    except OSError as error:
        raise CheckpointError(f"{told} is no complete checkpoint: its {_SUMS} can't be read.") from error


def _read_sums(url: str) -> bytes:
    try:
        return remote.read(f"{url}/{_SUMS}")
    except FileNotFoundError as error:
        raise CheckpointError(f"{url} is no complete checkpoint: it has no {_SUMS}.") from error


def _parsed(text: bytes, told: str) -> dict[str, str]:
    """By name, which leads nowhere else."""
    try:
        sums = json.loads(text)
        if all(Path(name).name == name and isinstance(given, str) for name, given in sums.items()):
            return dict(sums)
    except (ValueError, AttributeError):
        pass
    raise CheckpointError(f"{told} is no complete checkpoint: its {_SUMS} can't be read.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _scratch() -> Iterator[Path]:
    """An empty folder of this process, locked while it is in use: what a killed one left goes first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with _locked(left, wait=False) as mine:
            if mine:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        with _locked(folder, wait=True) as mine:
            # Another may have taken it for a leftover before it was locked.
            if not (mine and folder.is_dir()):
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock was got, which goes with the process however it ends."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(opened)
