"""The report as one HTML file: the template, style and script of this folder around the data."""

import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


def render(data: dict[str, Any]) -> str:
    """Render the report as a page that needs no network.

    Args:
        data: What `report_data` returns. Whatever in it comes from a model is escaped.

    Returns:
        The page as HTML.
    """
    # Within <script>, only "</" and "<!--" could end or change the element.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    contents = {
        "TITLE": html.escape(data["title"]),
        "STYLE": _resource("page.css"),
        "SCRIPT": _resource("page.js"),
        "DATA": text,
    }
    return re.sub("@([A-Z]+)@", lambda match: contents[match.group(1)], _resource("page.html"))


@cache
def _resource(name: str) -> str:
    """A file of this folder."""
    return (files("irsplit.reporting") / name).read_text(encoding="utf-8")
