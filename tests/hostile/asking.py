"""The command line under attack: a command ends with a code, and one line if that is 2."""

import contextlib
import io
import re
from pathlib import Path

from irsplit.base.errors import IrsplitError
from irsplit.cli import main

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def ask(*words: str | Path) -> int:
    """Run a command in this process; its exit code, 0 or 1.

    Raises IrsplitError with the line that a refusal is. Asserts that it is one, and that nothing
    printed steers a terminal.
    """
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = main([str(word) for word in words])
    text = said.getvalue()
    assert code in (0, 1, 2), code
    assert not _STEERING.search(text + printed.getvalue()), text
    if code == 2:
        errors = [
            line for line in text.splitlines() if not line.startswith(("note: ", "warning: "))
        ]
        assert len(errors) == 1, text
        assert errors[0].startswith("error: "), text
        raise IrsplitError(errors[0])
    return code
