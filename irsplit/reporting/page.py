"""The report as one HTML file: template, style and script of this folder around the data."""

import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


def render(data: dict[str, Any]) -> str:
    """A page that needs no network; everything in `data` that comes from a model is escaped."""
    # Inside <script>, only "</" and "<!--" could end or change the element.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(data["title"]),
        "STYLE": _part("page.css"),
        "SCRIPT": _part("page.js"),
        "DATA": text,
    }
    return re.sub("@([A-Z]+)@", lambda match: parts[match.group(1)], _part("page.html"))


@cache
def _part(name: str) -> str:
    return (files("irsplit.reporting") / name).read_text(encoding="utf-8")
