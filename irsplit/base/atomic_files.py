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
# The system, its C library or the file system does not know how.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)

_STALE_S = 60.0


@contextmanager
def new_folder(folder: Path, mark: str = MANIFEST) -> Generator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes otherwise.

    A folder that has files is replaced only when `mark`, the file by which its kind is known, is among them.
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
    """A temporary folder beside `path`, for what becomes `path`; it vanishes when the block ends."""
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
    """Of the names of what is not finished yet, beside `path`."""
    return f".{path.name}.irsplit-"


def _clear(path: Path) -> None:
    """Remove what killed processes have left beside `path`: nobody holds its lock, and it is old.

    The age is for the moment between the making of a folder and its lock.
    """
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with contextlib.suppress(OSError), _locked(left) as locked:
            if not locked or time.time() - left.stat().st_ctime < _STALE_S:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


@contextmanager
def _locked(path: Path) -> Generator[bool]:
    """Try to hold the lock of a file or folder, which goes with the process; whether it is held."""
    if fcntl is None:
        yield False
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process has it, or the file system has no locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _replace(build: Path, folder: Path) -> None:
    """Put `build` where `folder` is, in one step where the system can; what was there ends up at `build`."""
    if not folder.exists():
        build.rename(folder)
        return
    make_durable(build)  # the old one goes; a new one could be made again
    if not exchange(build, folder):
        _replace_in_two_steps(build, folder)


def _replace_in_two_steps(build: Path, folder: Path) -> None:
    """The old folder steps aside first: for a moment there is none, and a process killed then leaves it aside."""
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
    """Whether two files or folders have changed places in one step; False where the system cannot do that.

    Linux's renameat2(RENAME_EXCHANGE), which Python does not offer. Raises OSError when it could be done and failed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    paths = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    error = ctypes.get_errno()
    if error in _UNKNOWN:
        return False
    raise OSError(error, os.strerror(error), str(one), None, str(other))


def write_file(path: Path, write: Callable[[IO[bytes]], object], durable: bool = False) -> None:
    """Write a file that appears whole or not at all, in a folder that is made when it is not there.

    `durable`: even when the power fails. Raises BundleError when it cannot be written.
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
    """Have everything below `folder` on the disk before its name changes, so that no power cut leaves it half."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def make_durable_name(path: Path) -> None:
    """Have the name of a new file or folder on the disk."""
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
