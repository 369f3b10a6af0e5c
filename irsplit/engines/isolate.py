"""Call a function in a process of its own: an engine that aborts on a malformed model takes only that process along."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from irsplit.errors import EngineError, IrsplitError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def isolated(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What `function(*args, **kwargs)` returns or raises, computed in a fresh interpreter.

    The function must be importable by name; arguments and result are pickled. Raises EngineError when the process
    dies of a signal, with the signal's name.
    """
    request = pickle.dumps((function.__module__, function.__qualname__, args, kwargs))
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=request, capture_output=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise EngineError(f"the engine crashed ({name}) in {function.__name__}; the model file is probably damaged")
    if done.returncode > 0:
        raise RuntimeError(f"{function.__qualname__} failed in its process:\n{done.stderr.decode(errors='replace')}")
    outcome = pickle.loads(done.stdout)
    if isinstance(outcome, IrsplitError):
        raise outcome
    return outcome


def _serve() -> None:
    module, name, args, kwargs = pickle.load(sys.stdin.buffer)
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an engine prints must not get between the answer's bytes
    try:
        outcome = getattr(importlib.import_module(module), name)(*args, **kwargs)
    except IrsplitError as error:
        outcome = error
    with answer:
        answer.write(pickle.dumps(outcome))


if __name__ == "__main__":
    _serve()
