"""Names in models that are paths: no file is written where they lead."""

from pathlib import Path

import onnx
import pytest

from irsplit.cli import main
from test_delta import MODEL

PICTURE = next((MODEL.parent / "pictures").glob("*.png"))


@pytest.mark.parametrize("place", ["absolute", "above"])
def test_graph_whose_name_is_a_path_is_measured_in_a_temporary_folder(place, tmp_path, capsys):
    name = (
        str(tmp_path / "outside")
        if place == "absolute"
        else "../" * 20 + str(tmp_path / "outside")[1:]
    )
    model = onnx.load(MODEL)
    model.graph.name = name
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["plan", str(tmp_path / "model.onnx"), "--calibration", str(PICTURE)]) == 0
    assert Path(tmp_path / "model.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
