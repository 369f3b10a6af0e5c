"""What a build says on its way: lines for people, or one JSON object a line for machines, on standard error."""

import json
import sys
from typing import Any

from irsplit.passes import Remark


class Log:
    """`structured` gives {"event": ..., ...} a line; otherwise only remarks and errors are printed, as text."""

    def __init__(self, *, structured: bool) -> None:
        self.structured = structured

    def event(self, name: str, **details: Any) -> None:
        """Something that people need not read."""
        if self.structured:
            print(json.dumps({"event": name, **details}, ensure_ascii=False), file=sys.stderr, flush=True)

    def remark(self, remark: Remark) -> None:
        if self.structured:
            self.event("remark", **{"pass": remark.pass_name, "warning": remark.warning, "text": remark.text})
        else:
            print(f"{'warning' if remark.warning else 'note'}: {remark.text}", file=sys.stderr)

    def error(self, text: str) -> None:
        if self.structured:
            self.event("error", text=text)
        else:
            print(f"error: {text}", file=sys.stderr)
