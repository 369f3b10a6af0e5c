"""Pass tests as text: `// RUN: pipeline`, IR, `// ----`, and what comes out of `irsplit opt`.

What comes out are the remarks as comments, then the IR; or the error, as `// error: text`. A
pipeline with print-cuts prints no IR. Every case is the command

    irsplit opt CASE.irs --calibration tests/cases/samples/*.npz --pipeline PIPELINE

`pytest --update` rewrites what comes out, but records no error where none was expected: a case of
an error begins as a line `// error:` written by hand.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from irsplit.cli import main
from irsplit.ir import equal, parse_model, print_graph
from irsplit.passes import registry

CASES = Path(__file__).parent / "cases"
SAMPLES = sorted((CASES / "samples").glob("*.npz"))
RUN = "// RUN: "
SEPARATOR = "// ----\n"
ERROR = "// error: "
_SAID = re.compile(r"(note|warning): [a-z-]+: (.*)")


def pipeline_of(text: str) -> str:
    """The pipeline that a case runs."""
    line = next(line for line in text.splitlines() if line.startswith(RUN))
    return line.removeprefix(RUN)


def outcome(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command makes of the case, as the case writes it down."""
    pipeline = pipeline_of(path.read_text())
    code = main(["opt", str(path), "--pipeline", pipeline, "--calibration", *map(str, SAMPLES)])
    printed, said = capsys.readouterr()
    if code:
        assert (code, printed) == (2, "")
        return f"{ERROR}{said.removeprefix('error: ').removeprefix(f'{path}: ')}"

    remarks = "".join(f"// {_SAID.fullmatch(line)[2]}\n" for line in said.splitlines())
    if "print-cuts" in pipeline:
        return remarks

    model = parse_model(printed)
    graphs = "".join(map(print_graph, model.graphs))
    assert equal(parse_model(graphs), model)
    return remarks + graphs


def recorded(before: str, expected: str, result: str) -> str:
    """The text of a case with its new result. Raises AssertionError for an unexpected error."""
    if result.startswith(ERROR.rstrip()) and not expected.startswith(ERROR.rstrip()):
        raise AssertionError(
            f"the case ends in an error that it does not expect; write '{ERROR}' below "
            f"{SEPARATOR.strip()} if it should: {result}"
        )
    return before + SEPARATOR + result


@pytest.mark.parametrize(
    "path", sorted(CASES.glob("*/*.irs")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_case(
    path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    before, _, expected = path.read_text().partition(SEPARATOR)
    result = outcome(path, capsys)
    if request.config.getoption("--update"):
        path.write_text(recorded(before, expected, result))
        return
    assert result == expected


def test_every_installed_pass_has_cases() -> None:
    assert set(registry()) <= {path.name for path in CASES.iterdir()}


def test_an_update_records_no_error_out_of_the_blue() -> None:
    assert recorded("a\n", "b\n", "c\n") == "a\n// ----\nc\n"
    assert recorded("a\n", "// error: b\n", "// error: c\n") == "a\n// ----\n// error: c\n"
    with pytest.raises(AssertionError, match="does not expect"):
        recorded("a\n", "b\n", "// error: c\n")
    with pytest.raises(AssertionError, match="does not expect"):
        recorded("a\n", "", "// error: c\n")


def test_samples_are_one_range_and_outputs_that_agree() -> None:
    for path in SAMPLES:
        with np.load(path) as archive:
            assert archive["a"].tolist() == [-1.0, 0.5, 3.0]
            assert (archive["y"] == np.eye(4)).all()
