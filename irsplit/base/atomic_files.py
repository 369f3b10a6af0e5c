"""Folders and files that appear whole or not at all."""

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from irsplit.base.errors import BundleError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

MANIFEST = "manifest.json"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
"""The errors of a system, a C library or a file system that cannot exchange two files."""

_STALE_S = 60.0
"""The age of an unfinished folder without a lock from which on it is taken for abandoned."""


@contextmanager
def new_folder(folder: Path, mark: str = MANIFEST) -> Generator[Path]:
    """Make a folder that appears whole or not at all.

    Args:
        folder: The folder to make. One that has files is replaced only if `mark` is among them.
        mark: The file by which a folder of this kind is recognised.

    Yields:
        A temporary folder beside `folder`. It takes the place of `folder` if the block ends without
        an error, and is removed otherwise.

    Raises:
        BundleError: The folder has other files, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder}: is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise BundleError(
            f"{folder}: holds other files (no {mark} is there); give a new or empty folder"
        )

    with scratch_folder(folder) as build:
        yield build
        _replace(build, folder)


@contextmanager
def scratch_folder(path: Path) -> Generator[Path]:
    """Make a temporary folder beside `path`, for files that shall become `path`.

    Args:
        path: The file or folder to make; its parent is created if necessary.

    Yields:
        The folder, which is removed when the block ends.

    Raises:
        BundleError: The parent cannot be written, or the block raised an OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        build = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written: {error.strerror}; give a folder that you may write"
        ) from error

    try:
        with _locked(build):
            build.chmod(0o755)
            yield build
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _prefix(path: Path) -> str:
    """What the names of unfinished files and folders beside `path` begin with."""
    return f".{path.name}.irsplit-"


def _clear(path: Path) -> None:
    """Remove what killed processes have left beside `path`.

    Such a file or folder is old, and nobody holds its lock. The age protects one that another
    process has made but not locked yet.
    """
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with contextlib.suppress(OSError), _locked(leftover) as locked:
            if not locked or time.time() - leftover.stat().st_ctime < _STALE_S:
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()


@contextmanager
def _locked(path: Path) -> Generator[bool]:
    """Try to lock a file or folder for the block; yields whether it is locked.

    The lock disappears with the process, even if that is killed.
    """
    if fcntl is None:
        yield False
        return

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another process has the lock, or the file system has no locks.
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _replace(build: Path, folder: Path) -> None:
    """Put `build` in the place of `folder`, in one step if the system can do that.

    What was in `folder` is at `build` afterwards, or gone.
    """
    if not folder.exists():
        build.rename(folder)
        return
    # The old folder is lost, so the new one must survive a power cut.
    make_durable(build)
    if not exchange(build, folder):
        _replace_in_two_steps(build, folder)


def _replace_in_two_steps(build: Path, folder: Path) -> None:
    """Rename the old folder, then the new one.

    Between the steps there is no folder, and a process that is killed then leaves the old one under
    its other name.
    """
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.rename(folder, aside / "old")
    try:
        os.rename(build, folder)
    except OSError:
        os.rename(aside / "old", folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step, by Linux's renameat2(RENAME_EXCHANGE).

    Returns:
        True if they were exchanged, False if the system cannot do that.

    Raises:
        OSError: The system can exchange files in general, but not these.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False

    paths = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True

    error = ctypes.get_errno()
    if error in _UNSUPPORTED:
        return False
    raise OSError(error, os.strerror(error), str(one), None, str(other))


def write_file(path: Path, write: Callable[[IO[bytes]], object], durable: bool = False) -> None:
    """Write a file that appears whole or not at all.

    Args:
        path: The file; its folder is created if necessary.
        write: Writes the contents to the open file that it is called with.
        durable: Whether the contents must be on the disk before the file gets its name, so that it
            is whole even after a power cut.

    Raises:
        BundleError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=_prefix(path), delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                with _locked(temporary):
                    write(file)
                    file.flush()
                    temporary.chmod(0o644)
                    if durable:
                        _sync(temporary)
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written: {error.strerror}; give a file that you may write"
        ) from error


def make_durable(folder: Path) -> None:
    """Force everything in a folder to the disk, so that no power cut leaves it incomplete."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def make_durable_name(path: Path) -> None:
    """Force the name of a new file or folder to the disk."""
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
