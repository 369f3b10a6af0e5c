"""The benchmark suite and the page that it makes, on a few of its quickest cases."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.page import page, plots

ROOT = Path(__file__).parent.parent
FEW = "(test_resume and digits) or (test_codec and digits and raw) or (test_free and 1000-skips)"


def test_suite_and_page(tmp_path: Path) -> None:
    words = (
        "--benchmark-only",
        "--benchmark-min-rounds=1",
        "--benchmark-max-time=0.01",
        "--benchmark-quiet",
    )
    command = [sys.executable, "-m", "pytest", "benchmarks", "-k", FEW, *words]
    suite = tmp_path / "suite.json"
    # A worker of pytest-xdist says so to its children, and pytest-benchmark times nothing in one.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, f"--benchmark-json={suite}"],
        cwd=ROOT,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(suite.read_text())
    labels = {(timing["group"], timing["extra_info"]["label"]) for timing in data["benchmarks"]}
    assert {("resume: digits", "whole model"), ("resume: digits", "irsplit zstandard")} <= labels
    text = page(data)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Encoding a boundary", "## Decoding a boundary", "## Planning", "## A split inference",
    ]  # fmt: skip
    assert "| over whole model |" in text
    drawn = plots(data)
    assert set(drawn) == {"encode.svg", "decode.svg", "plan.svg", "resume.svg"}
    for name, svg in drawn.items():
        assert f"(benchmarks/{name})" in text
        bars = ElementTree.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}rect")
        assert len(bars) == sum(
            timing["group"].startswith(name[:-4]) for timing in data["benchmarks"]
        )
