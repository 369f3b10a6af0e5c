"""The example workflow: its steps in a fresh checkout, as the service would run them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from irsplit.compilation.build import BuildFile

ROOT = Path(__file__).parent.parent
WORKFLOW = ".github/workflows/bundles.yml"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The example as a repository of its own, and beside it the commands that the steps call."""
    shutil.copytree(ROOT / "examples" / "ci", tmp_path / "repository")
    commands = {
        "irsplit": f'exec {sys.executable} -m irsplit "$@"',
        "pip": f'echo "$@" >> {tmp_path}/pip.log',
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path / "repository"


def job(checkout: Path) -> dict[str, Any]:
    return yaml.safe_load((checkout / WORKFLOW).read_text())["jobs"]["bundles"]


def steps(checkout: Path) -> list[dict[str, Any]]:
    return job(checkout)["steps"]


def run(checkout: Path, step: dict[str, Any]) -> str:
    path = f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | job(checkout)["env"]
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{step['run']}\n{done.stdout}{done.stderr}"
    return done.stdout


def events(checkout: Path) -> dict[str, list[str]]:
    lines = map(json.loads, (checkout / "bundles.log").read_text().splitlines())
    found: dict[str, list[str]] = {}
    for event in lines:
        found.setdefault(event["target"], []).append(event["event"])
    return found


def test_the_steps_run(checkout: Path) -> None:
    said = {
        step.get("name", step["run"]): run(checkout, step)
        for step in steps(checkout)
        if "run" in step
    }
    assert (
        checkout.parent / "pip.log"
    ).read_text() == f"install {job(checkout)['env']['IRSPLIT']}\n"
    names = [target.name for target in BuildFile.load(checkout / "irsplit.toml").targets]
    assert events(checkout).keys() == set(names)
    assert all(each[0] == "start" and each[-1] == "done" for each in events(checkout).values())
    outcomes = said["Verify"].split("\n}\n")[:-1]
    assert [json.loads(outcome + "}")["holds"] for outcome in outcomes] == [True] * len(names)
    kept = next(
        step["with"]["path"]
        for step in steps(checkout)
        if "upload-artifact" in step.get("uses", "")
    )
    assert all(list(checkout.glob(pattern.rstrip("/"))) for pattern in kept.split())
    assert all((checkout / "build" / name / "report.html").is_file() for name in names)


def test_the_cache_is_keyed_by_all_that_bundles_are_made_of(checkout: Path) -> None:
    compiling = next(step for step in steps(checkout) if step.get("name") == "Compile")
    run(checkout, compiling)
    cache = next(step["with"] for step in steps(checkout) if "cache" in step.get("uses", ""))
    patterns = re.findall("'([^']+)'", cache["key"])
    build = BuildFile.load(checkout / "irsplit.toml")
    assert cache["path"] == build.output.name
    files = {
        os.path.relpath(file, checkout) for target in build.targets for file in build.inputs(target)
    }
    assert len(files) > 2
    assert all(any(fnmatch(file, pattern) for pattern in patterns) for file in files)
    # What the cache brings back is looked at by digest: a checkout gives files its own time.
    for file in (checkout / "models").rglob("*"):
        os.utime(file)
    run(checkout, compiling)
    assert set(map(tuple, events(checkout).values())) == {("fresh",)}


def test_the_projects_own_workflow_runs_what_is_there() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert os.access(ROOT / jobs["test"]["steps"][-1]["run"], os.X_OK)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    converters = {"test-torch", "test-tflite", "test-litert-torch", "test-tensorflow", "test-olive"}
    assert (
        set(jobs["converters"]["strategy"]["matrix"]["extra"])
        == converters
        <= {*project["optional-dependencies"]}
    )
