"""Call a function in another process: an engine that aborts on a damaged model ends only that one.

There are two ways. `isolated` starts a fresh interpreter for one call. `copies` starts one
interpreter, lets it load an engine once, and forks it for every call. In both, request and answer
are pickled, and the request names the function by module and qualified name.
"""

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
"""Whether a process that has loaded an engine can be forked.

Elsewhere system libraries forbid it, or there is no fork.
"""

_Request = tuple[str, str, Sequence[Any], dict[str, Any]]
"""Module and qualified name of a function, positional and keyword arguments."""


class Isolation(Protocol):
    """Calls a function in another process, as `isolated` does."""

    def __call__(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what the function returns, or raise what it raises."""
        ...


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a fresh interpreter.

    Args:
        function: A function that can be imported by name.
        args: Its positional arguments, which can be pickled, as its result can.
        kwargs: Its keyword arguments.

    Returns:
        What the function returned.

    Raises:
        IrsplitError: The function raised it.
        EngineError: A signal ended the process. The text names the signal.
        RuntimeError: The function raised anything else, which is a fault of irsplit.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=_request(function, args, kwargs),
        capture_output=True,
        check=False,
    )
    # A negative return code is the number of the signal that ended the process.
    if done.returncode < 0:
        raise _crashed(-done.returncode, function.__name__)
    if done.returncode > 0:
        trace = done.stderr.decode(errors="replace")
        raise RuntimeError(f"{function.__qualname__} failed in its process:\n{trace}")
    return _result(pickle.loads(done.stdout))


@contextlib.contextmanager
def copies(modules: Sequence[str]) -> Generator[Isolation]:
    """Start an interpreter that loads some modules, and call functions in copies of it.

    A call takes milliseconds, because the copy has loaded the modules already. It shares the
    interpreter's memory, so its own peak memory tells nothing. Where processes cannot be copied,
    every call is `isolated`.

    Args:
        modules: Names of the modules to load.

    Yields:
        A function to call as `isolated`.
    """
    if not _COPIES:
        yield isolated
        return

    command = [sys.executable, "-m", __name__, *modules]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
            requests.write(_request(function, args, kwargs))
            requests.flush()
            return _result(pickle.load(answers))

        yield call


def _request(function: Callable[..., object], args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
    return pickle.dumps((function.__module__, function.__qualname__, args, kwargs))


def _result(outcome: Any) -> Any:
    """Raise an outcome that is an error, return any other."""
    if isinstance(outcome, IrsplitError | RuntimeError):
        raise outcome
    return outcome


def _crashed(number: int, name: str) -> EngineError:
    return EngineError(
        f"the engine crashed ({signal.Signals(number).name}) in {name}; "
        "the model file is probably damaged"
    )


# -- in the other process -------------------------------------------------------------------------


def _outcome(request: _Request) -> bytes:
    """Call the function; pickle what it returned, or the IrsplitError that it raised."""
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

        # Only the copy answers: this process writes to `answers` when the copy could not.
        child = os.fork()
        if not child:
            _answer_and_exit(request, answers)

        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            answers.write(pickle.dumps(_crashed(os.WTERMSIG(status), request[1])))
            answers.flush()


def _answer_and_exit(request: _Request, answers: BinaryIO) -> None:
    """Answer one request, then end this process.

    The answer is written in one piece, so that a copy which dies has written nothing. The exit is
    immediate, so that nothing of the copied process is torn down.
    """
    try:
        answer = _outcome(request)
    except BaseException:
        trace = traceback.format_exc()
        answer = pickle.dumps(RuntimeError(f"{request[1]} failed in its process:\n{trace}"))
    answers.write(answer)
    answers.flush()
    os._exit(0)


def _serve(modules: Sequence[str]) -> None:
    """Answer one request, or with `modules` to load, any number of them."""
    # What an engine prints must not get between the bytes of the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    for module in modules:
        importlib.import_module(module)
    with answers:
        if modules:
            _serve_copies(answers)
        else:
            answers.write(_outcome(pickle.load(sys.stdin.buffer)))


if __name__ == "__main__":
    _serve(sys.argv[1:])
