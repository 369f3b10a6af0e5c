"""Call a function in a process of its own: an engine that aborts on a malformed model takes only that process along."""

import contextlib
import importlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any, BinaryIO, ParamSpec, Protocol, TypeVar

from irsplit.base.errors import EngineError, IrsplitError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_COPIES = sys.platform == "linux"
"""Whether a process that has loaded an engine can be copied: elsewhere system libraries forbid it, or nothing forks."""


class Isolation(Protocol):
    """Something that calls functions elsewhere, as `isolated` does."""

    def __call__(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T: ...


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What `function(*args, **kwargs)` returns or raises, computed in a fresh interpreter.

    The function must be importable by name; arguments and result are pickled. Raises EngineError when the process
    dies of a signal, with the signal's name.
    """
    request = _request(function, args, kwargs)
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=request, capture_output=True, check=False
    )
    if done.returncode < 0:
        raise _crashed(-done.returncode, function.__name__)
    if done.returncode > 0:
        raise RuntimeError(
            f"{function.__qualname__} failed in its process:\n{done.stderr.decode(errors='replace')}"
        )
    return _result(pickle.loads(done.stdout))


@contextlib.contextmanager
def copies(modules: Sequence[str]) -> Generator[Isolation]:
    """Calls like `isolated`, each in a copy of one interpreter that has loaded the `modules`: milliseconds, not their
    imports. A copy shares that interpreter's memory, so its own peak tells nothing. Where processes cannot be copied,
    this is `isolated`.
    """
    if not _COPIES:
        yield isolated
        return
    command = [sys.executable, "-m", __name__, *modules]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere) as process:
        to, back = process.stdin, process.stdout
        assert to is not None
        assert back is not None

        def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
            to.write(_request(function, args, kwargs))
            to.flush()
            return _result(pickle.load(back))

        yield call


def _request(function: Callable[..., object], args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
    return pickle.dumps((function.__module__, function.__qualname__, args, kwargs))


def _result(outcome: Any) -> Any:
    if isinstance(outcome, IrsplitError | RuntimeError):
        raise outcome
    return outcome


def _crashed(number: int, name: str) -> EngineError:
    text = f"the engine crashed ({signal.Signals(number).name}) in {name}; the model file is probably damaged"
    return EngineError(text)


def _outcome(request: tuple[str, str, Sequence[Any], dict[str, Any]]) -> bytes:
    """Pickled: what the call returned, or the IrsplitError that it raised."""
    module, name, args, kwargs = request
    try:
        outcome = getattr(importlib.import_module(module), name)(*args, **kwargs)
    except IrsplitError as error:
        outcome = error
    return pickle.dumps(outcome)


def _serve_copies(answers: BinaryIO) -> None:
    """Answer requests until there are no more, each from a copy of this process."""
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        child = os.fork()
        if not child:
            _answer_and_exit(request, answers)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            answers.write(pickle.dumps(_crashed(os.WTERMSIG(status), request[1])))
            answers.flush()


def _answer_and_exit(
    request: tuple[str, str, Sequence[Any], dict[str, Any]], answers: BinaryIO
) -> None:
    """In one piece, so that a copy which dies has said nothing; nothing of the copied process is torn down."""
    try:
        answer = _outcome(request)
    except BaseException:
        answer = pickle.dumps(
            RuntimeError(f"{request[1]} failed in its process:\n{traceback.format_exc()}")
        )
    answers.write(answer)
    answers.flush()
    os._exit(0)


def _serve(modules: Sequence[str]) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # what an engine prints must not get between the answers' bytes
    for module in modules:
        importlib.import_module(module)
    with answers:
        if modules:
            _serve_copies(answers)
        else:
            answers.write(_outcome(pickle.load(sys.stdin.buffer)))


if __name__ == "__main__":
    _serve(sys.argv[1:])
