"""Log on standard error what happens: lines for people, or one JSON object per line."""

import json
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from irsplit.commands.flags import in_flags
from irsplit.commands.terminal import message

if TYPE_CHECKING:
    from irsplit.passes import Remark

_SPEAKING = threading.Lock()


def say(line: str) -> None:
    """Write one line whole, since the targets of a build file write from several threads."""
    with _SPEAKING:
        print(line, file=sys.stderr, flush=True)


def say_remarks(remarks: Iterable["Remark"]) -> None:
    """Write the remarks of passes as lines for people."""
    log = Log(structured=False)
    for remark in remarks:
        log.remark(remark)


class Log:
    """The log of a command.

    Args:
        structured: Whether every event is a line {"event": ..., ...}; otherwise notes, remarks
            and errors are printed as text, and nothing else.
    """

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured

    def event(self, name: str, **details: Any) -> None:
        """Log something that people need not read."""
        if self.structured:
            say(json.dumps({"event": name, **details}, ensure_ascii=False))

    def remark(self, remark: "Remark") -> None:
        """Log a remark of a pass, with flags in place of names of the Python interface."""
        text = in_flags(remark.text)
        if self.structured:
            said = {"pass": remark.pass_name, "warning": remark.warning, "text": text}
            self.event("remark", **said)
        else:
            say(f"{'warning' if remark.warning else 'note'}: {message(text)}")

    def note(self, text: str) -> None:
        """Log something that people should know."""
        if self.structured:
            self.event("note", text=text)
        else:
            say(f"note: {message(text)}")

    def error(self, text: str) -> None:
        """Log an error."""
        if self.structured:
            self.event("error", text=text)
        else:
            say(f"error: {message(text)}")
