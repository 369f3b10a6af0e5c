"""What a build says on standard error: lines for people, or one JSON object per line."""

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
    """Write one line whole: the targets of a build file speak from several threads."""
    with _SPEAKING:
        print(line, file=sys.stderr, flush=True)


def say_remarks(remarks: Iterable["Remark"]) -> None:
    """What passes had to say, as lines for people."""
    log = Log(structured=False)
    for remark in remarks:
        log.remark(remark)


class Log:
    """Where a command says what happens.

    Args:
        structured: Whether every event is a line {"event": ..., ...}; otherwise notes, remarks
            and errors are printed as text, and nothing else.
    """

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured

    def event(self, name: str, **details: Any) -> None:
        """Something that people need not read."""
        if self.structured:
            say(json.dumps({"event": name, **details}, ensure_ascii=False))

    def remark(self, remark: "Remark") -> None:
        """What a pass said, with flags in place of names of the Python interface."""
        text = in_flags(remark.text)
        if self.structured:
            said = {"pass": remark.pass_name, "warning": remark.warning, "text": text}
            self.event("remark", **said)
        else:
            say(f"{'warning' if remark.warning else 'note'}: {message(text)}")

    def note(self, text: str) -> None:
        """Something that people should know."""
        if self.structured:
            self.event("note", text=text)
        else:
            say(f"note: {message(text)}")

    def error(self, text: str) -> None:
        if self.structured:
            self.event("error", text=text)
        else:
            say(f"error: {message(text)}")
