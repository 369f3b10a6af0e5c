"""How agreement is measured: detections as sets, label maps as mIoU, other outputs by their largest
elements; which outputs a boundary reaches; and compilations whose target may not be met by what is
left out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

import irsplit
from irsplit.base.errors import IrsplitError, MeasureError, PassError
from irsplit.codec_training.agreement.base import OutputHead, Score, measured
from irsplit.codec_training.agreement.detections import (
    Detections,
    Rows,
    SelectedBoxes,
    SeparateOutputs,
)
from irsplit.codec_training.agreement.f1 import DetectionHead, matches, overlap
from irsplit.codec_training.agreement.iou import LabelMap
from irsplit.codec_training.agreement.measures import heads_of
from irsplit.codec_training.agreement.reach import reached_outputs
from irsplit.codec_training.agreement.recognise import View
from irsplit.codec_training.agreement.top1 import Top1, top1
from irsplit.compilation.differences import compare
from irsplit.ir import HeadRole, Node, parse_model

BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 70]], np.float32)
CLASSES = np.array([1, 2, 1], np.int64)
SCORES = np.array([0.9, 0.8, 0.3], np.float32)
DETECTOR = DetectionHead(SeparateOutputs("boxes", "classes", "scores"))


def found(keep: Any = slice(None), shift: float = 0.0, classes: Any = CLASSES) -> dict[str, Any]:
    return {
        "boxes": BOXES[keep] + np.float32(shift),
        "classes": classes[keep],
        "scores": SCORES[keep],
    }


# -- top1 ------------------------------------------------------------------------------------------


def test_another_shape_is_a_disagreement_and_nothing_on_both_sides_an_agreement() -> None:
    assert top1([np.eye(4)], [np.eye(4)]) == Score(1.0, 4)
    assert top1([np.eye(4)], [np.zeros((0, 4))]) == Score(0.0, 4)
    assert top1([np.zeros((0, 4))], [np.eye(4)]) == Score(0.0, 4)
    assert top1([np.zeros((0, 4))], [np.zeros((0, 4))]) == Score(1.0, 0)
    assert top1([np.eye(4)], [None]) == Score(0.0, 4)
    assert top1([np.array([1.0, 2.0]), np.zeros((0,))], [np.array([1.0]), np.zeros((0,))]) == Score(
        0.0, 1
    )


def test_a_map_of_classes_is_a_row() -> None:
    expected, other = [{"a": 0.1, "b": 0.9}], [{"a": 0.6, "b": 0.4}]
    assert top1([expected], [expected]) == Score(1.0, 1)
    assert top1([expected], [other]) == Score(0.0, 1)
    assert top1([[np.zeros(2), np.zeros(3)]], [[np.zeros(2), np.zeros(3)]]) == Score(1.0, 0)


numbers = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(numbers, numbers, st.sampled_from([(None, None), (1, None), (-1, None), (None, 0.5)]))
def test_no_array_makes_a_measure_fail_or_warn(one: Any, other: Any, layout: Any) -> None:
    heads: list[OutputHead] = [
        Top1("y"),
        LabelMap("y", *layout),
        DetectionHead(SeparateOutputs("y", None, "z")),
        DetectionHead(SelectedBoxes("y", "z")),
        DetectionHead(Rows("y")),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for head in heads:
            score = head.score([{"y": one, "z": other}], [{"y": other, "z": one}])
            assert 0 <= score.share <= 1
        compare("y", [one, one], [other, one])


# -- f1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (found(), 1.0),
        (found([2, 0, 1]), 1.0),
        (found(shift=1), 1.0),
        (found(shift=30), 0.0),
        (found([0, 1]), 0.8),
        (found([]), 0.0),
        (found(classes=np.array([1, 7, 1])), 2 / 3),
        ({}, 0.0),
    ],
    ids=[
        "the same",
        "in another order",
        "moved a little",
        "moved away",
        "one lost",
        "all lost",
        "a class",
        "missing",
    ],
)
def test_detections_are_compared_as_sets(other: dict[str, Any], share: float) -> None:
    assert DETECTOR.score([found()], [other]).share == pytest.approx(share)
    assert DETECTOR.score([other], [found()]).share == pytest.approx(share)


def test_pictures_without_detections_do_not_dilute() -> None:
    """Of a hundred pictures one has something to be found, and it is lost."""
    nothing = [found([])] * 99
    assert DETECTOR.score([*nothing, found()], [*nothing, found([])]) == Score(0.0, 3)
    assert DETECTOR.score(nothing, nothing) == Score(1.0, 0)


def test_weak_detections_need_no_partner() -> None:
    head = DetectionHead(DETECTOR.reader, 0.5)
    assert head.measure == "f1@0.5"
    assert head.score([found()], [found([0, 1])]).share == 1.0
    weaker = found() | {
        "scores": SCORES * np.float32(0.6)
    }  # 0.48 instead of 0.8: still the partner of a strong one
    assert head.score([found()], [weaker]).share == 1.0


def test_a_detection_has_one_partner_at_most() -> None:
    twice = Detections(
        np.repeat(BOXES[:1], 2, 0).astype(float),
        np.zeros(2, int),
        np.ones(2, int),
        np.array([0.9, 0.8]),
    )
    once = Detections(BOXES[:1].astype(float), np.zeros(1, int), np.ones(1, int), np.array([0.9]))
    of_two, of_one = matches(twice, once)
    assert (of_two.sum(), of_one.sum()) == (1, 1)


def test_overlap() -> None:
    box = np.array([0.0, 0, 2, 2])
    others = np.array([[0.0, 0, 2, 2], [2, 2, 0, 0], [0, 0, 2, 1], [5, 5, 6, 6], [np.nan, 0, 1, 1]])
    np.testing.assert_allclose(overlap(box, others), [1, 1, 0.5, 0, 0])
    assert overlap(np.zeros(4), np.zeros((1, 4))).tolist() == [1]


def test_layouts_of_detections() -> None:
    padded = {
        "boxes": np.stack([BOXES, BOXES]),
        "classes": np.stack([CLASSES, CLASSES]).astype(np.float32),
        "scores": np.stack([SCORES, SCORES]),
        "count": np.array([2.0, 0.0], np.float32),
    }
    read = SeparateOutputs("boxes", "classes", "scores", "count").read(padded)
    assert (read.images.tolist(), read.classes.tolist()) == ([0, 0], [1, 2])

    selected = {
        "i": np.array([[0, 1, 2], [-1, -1, -1]]),
        "b": BOXES[None],
        "s": np.full((1, 2, 3), 0.5),
    }
    read = SelectedBoxes("i", "b", "s").read(selected)
    assert (read.boxes.tolist(), read.classes.tolist(), read.scores.tolist()) == (
        [BOXES[2].tolist()],
        [1],
        [0.5],
    )
    centered = SelectedBoxes("i", "b", centered=True).read(
        {"i": [[0, 0, 0]], "b": [[[5.0, 5, 10, 10]]]}
    )
    assert centered.boxes.tolist() == [[0, 0, 10, 10]]
    assert (
        matches(SelectedBoxes("i").read(selected), SelectedBoxes("i").read({"i": [[0, 1, 1]]}))[
            0
        ].sum()
        == 0
    )

    rows = np.concatenate([BOXES, SCORES[:, None], CLASSES[:, None]], 1)
    swapped = rows[:, [0, 1, 2, 3, 5, 4]]
    of_seven = np.concatenate([np.zeros((3, 1)), swapped], 1)
    for table in (rows, swapped, of_seven, np.pad(rows, ((0, 2), (0, 0)))[None]):
        read = Rows("y").read({"y": table})
        assert read.classes.tolist() == CLASSES.tolist()
        np.testing.assert_allclose(read.scores, SCORES, rtol=1e-6)


# -- iou -------------------------------------------------------------------------------------------


def test_label_maps() -> None:
    map_ = np.array([[[0, 0, 1, 1], [0, 0, 1, 2]]])
    moved = np.array([[[0, 0, 0, 1], [0, 0, 1, 2]]])
    head = LabelMap("y")
    assert head.score([{"y": map_}], [{"y": map_}]) == Score(1.0, 8)
    assert head.score([{"y": map_}], [{"y": moved}]).share == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)
    assert head.score([{"y": map_}], [{"y": map_[:, :1]}]) == Score(0.0, 8)
    assert head.score([{"y": map_[:0]}], [{"y": map_[:0]}]) == Score(1.0, 0)


def test_likelihoods_of_classes_and_masks() -> None:
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, 1, 0] = 1
    flat = np.zeros_like(logits)
    assert LabelMap("y", 1).score([{"y": logits}], [{"y": logits * 9}]).share == 1.0
    # Below, all classes are equally likely, and any that is found will do.
    tied = logits.copy()
    tied[0, 2, 1] = 1
    assert LabelMap("y", 1).score([{"y": logits}], [{"y": tied}]).share == 1.0
    assert LabelMap("y", 1).score([{"y": logits}], [{"y": flat}]).share == pytest.approx(0.25)
    mask = np.array([0.1, 0.6, 0.7, 0.2]).reshape(1, 2, 2, 1)
    assert LabelMap("y", threshold=0.5).score([{"y": mask}], [{"y": np.cbrt(mask)}]).share < 1.0


# -- what is reached, what is recognised -----------------------------------------------------------


def test_reach() -> None:
    graphs = parse_model("""model test
graph @device(%x: f32[1,8]) -> (%early, %a) {
  %a = test.op(%x) : f32[1,8]
  %b = test.op(%x) : f32[1,8]
  %early = test.op(%a) : f32[1,8]
  irsplit.send 0 %a, %b
}
graph @server() -> (%y, %z) {
  %a, %b = irsplit.recv 0 : f32[1,8], f32[1,8]
  %c = test.op(%a) : f32[1,8]
  %y = test.op(%c) : f32[1,8]
  %z = test.op(%b) : f32[1,8]
}""").graphs
    assert reached_outputs(graphs, [(), {"a"}]) == {"y"}
    assert reached_outputs(graphs, [(), {"a", "b"}]) == {"y", "z"}
    assert reached_outputs(graphs, [(), ()]) == set()


def role_of(node: Node) -> HeadRole:
    roles: dict[str, HeadRole] = {
        "test.detect": "detections",
        "test.select": "selection",
        "test.centers": "centered-selection",
        "test.largest": "largest",
        "test.sigmoid": "likelihood",
        "test.move": "move",
        "test.pick": "pick",
    }
    return roles.get(node.op, "")


def heads(
    graph: str, sample: dict[str, Any], word: str = "", layout: str = "NCHW"
) -> list[OutputHead]:
    model = parse_model(f"model test\ngraph @main{graph}")
    outputs = tuple(value.name for value in model.entry.outputs)
    return heads_of(word, View((model.entry,), outputs, role_of, layout, sample))


def test_the_detector_of_tflite_is_recognised_behind_moves() -> None:
    graph = """(%x: f32[1,8]) -> (%n, %s, %b, %logits) {
  %logits = test.op(%x) : f32[1,8]
  %b0, %c, %s, %n0 = test.detect(%x) : f32[*], f32[*], f32[*], f32[*]
  %b = test.move(%b0) : f32[*]
  %n = test.move(%n0) : f32[*]
}"""
    sample = {"n": np.ones(1), "s": np.ones((1, 3)), "b": BOXES[None], "logits": np.ones((1, 8))}
    assert heads(graph, sample) == [
        DetectionHead(SeparateOutputs("b", None, "s", "n")),
        Top1("logits"),
    ]


SELECTED = np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("graph", "sample", "reader"),
    [
        (
            """(%b: f32[1,9,4], %s: f32[1,2,9]) -> (%i) {
  %i = test.select(%b, %s) : i64[n,3]
}""",
            {"i": SELECTED},
            SelectedBoxes("i"),
        ),
        (
            """(%x: f32[1,9,4]) -> (%boxes, %scores, %i) {
  %b = test.op(%x) : f32[9,4]
  %boxes = test.move(%b) : f32[1,9,4]
  %scores = test.op(%x) : f32[1,2,9]
  %b1 = test.move(%b) : f32[1,9,4]
  %i = test.centers(%b1, %scores) : i64[n,3]
}""",
            {"i": SELECTED, "boxes": np.zeros((1, 9, 4)), "scores": np.zeros((1, 2, 9))},
            SelectedBoxes("i", "boxes", "scores", centered=True),
        ),
        (
            """(%b: f32[1,9,4], %s: f32[1,2,9]) -> (%labels, %boxes, %scores) {
  %i = test.centers(%b, %s) : i64[n,3]
  %boxes = test.pick(%b, %i) : f32[n,4]
  %labels = test.op(%i) : i64[n]
  %scores = test.op(%s, %i) : f32[n]
}""",
            {"boxes": BOXES, "labels": CLASSES, "scores": SCORES},
            SeparateOutputs("boxes", "labels", "scores", centered=True),
        ),
        (
            """(%b: f32[1,9,4], %s: f32[1,2,9]) -> (%y) {
  %i = test.select(%b, %s) : i64[n,3]
  %y = test.op(%i, %b) : f32[n,7]
}""",
            {"y": np.zeros((0, 7), np.float32)},
            Rows("y"),
        ),
    ],
    ids=["indices", "indices and boxes", "gathered", "rows"],
)
def test_suppression_is_recognised(graph: str, sample: dict[str, Any], reader: Any) -> None:
    assert heads(graph, sample) == [DetectionHead(reader)]
    assert heads(graph, sample, "f1@0.3") == [DetectionHead(reader, 0.3)]


MAP = """(%x: f32[1,3,8,8]) -> (%y) {{
  %y0 = test.{}(%x) : f32[*]
  %y = test.move(%y0) : {}
}}"""


@pytest.mark.parametrize(
    ("op", "array", "head"),
    [
        ("largest", np.zeros((1, 8, 8), np.uint8), LabelMap("y")),
        ("op", np.zeros((1, 8, 8), np.int64), LabelMap("y")),
        ("op", np.zeros((1, 8, 8), np.uint8), Top1("y")),
        ("op", np.zeros((1, 8), np.int64), Top1("y")),
        ("op", np.zeros((1, 21, 8, 8), np.float32), LabelMap("y", 1)),
        ("op", np.zeros((1, 21, 4, 4), np.float32), Top1("y")),
        ("op", np.zeros((1, 3, 8, 8), np.float32), Top1("y")),
        ("sigmoid", np.zeros((1, 1, 8, 8), np.float32), LabelMap("y", threshold=0.5)),
        ("op", np.zeros((1, 1, 8, 8), np.float32), Top1("y")),
    ],
)
def test_label_maps_are_recognised(op: str, array: Any, head: OutputHead) -> None:
    assert heads(MAP.format(op, "f32[*]"), {"y": array}) == [head]


def test_a_measure_that_is_asked_for() -> None:
    graph, sample = MAP.format("op", "f32[*]"), {"y": np.zeros((1, 3, 8, 8), np.float32)}
    assert heads(graph, sample, "iou") == [LabelMap("y", 1)]
    assert heads(graph, sample, "iou", "NHWC") == [LabelMap("y", 3)]
    with pytest.raises(
        MeasureError, match=r"'f1' can read none of the outputs \(y \[1, 3, 8, 8\]\); give top1"
    ):
        heads(graph, sample, "f1")
    for word, said in {
        "f1@x": "a score is 0 to 1",
        "recall": "unknown agreement measure 'recall'; known: top1, iou, f1, or FILE.py:function",
        "nothere.py:f": "nothere.py: no such file",
    }.items():
        with pytest.raises(MeasureError, match=said):
            heads(graph, sample, word)


def test_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "measure.py"
    file.write_text(
        "def near(expected, found):\n"
        "    return float(abs(expected[0]['y'] - found[0]['y']).max() < 1)\n"
        "def percent(expected, found):\n"
        "    return 99\n"
        "def failing(expected, found):\n"
        "    return expected[0]['x']\n"
    )
    graph, sample = MAP.format("op", "f32[*]"), {"y": np.zeros((1, 3))}
    (head,) = heads(graph, sample, f"{file}:near")
    assert measured([head], [sample], [sample]).share == 1.0
    assert measured([head], [sample], [{"y": np.ones((1, 3))}]).share == 0.0
    for name, said in {
        "percent": "gave 99.0; a share is 0 to 1",
        "failing": "failed: KeyError: 'x'; correct the function",
    }.items():
        (head,) = heads(graph, sample, f"{file}:{name}")
        with pytest.raises(MeasureError, match=said):
            measured([head], [sample], [sample])
    with pytest.raises(MeasureError, match="has no function 'far'; it has near, percent, failing"):
        heads(graph, sample, f"{file}:far")
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(MeasureError, match="cannot be run: ModuleNotFoundError"):
        heads(graph, sample, f"{file}:near")


# -- whole compilations ----------------------------------------------------------------------------


def detector(path: Path, *, early: bool = False) -> Path:
    """A detector in ONNX: rows of four corners and a score, suppressed and gathered."""
    constants = {
        "one": np.ones(1, np.float32),
        "sizes": np.array([4, 1], np.int64),
        "most": np.array([10], np.int64),
        "overlap": np.array([0.5], np.float32),
        "least": np.array([0.5], np.float32),
        "third": np.array(2, np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["head"]),
        helper.make_node("Split", ["head", "sizes"], ["boxes", "column"], axis=2),
        helper.make_node("Transpose", ["column"], ["scores"], perm=[0, 2, 1]),
        helper.make_node(
            "NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["indices"]
        ),
        helper.make_node("Gather", ["indices", "third"], ["places"], axis=1),
        helper.make_node("Gather", ["boxes", "places"], ["found"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info("indices", TensorProto.INT64, ["n", 3]),
        helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, "n", 4]),
    ]
    if early:
        nodes.insert(0, helper.make_node("Mul", ["x", "one"], ["rows"]))
        outputs.insert(0, helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, 64, 5]))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 5])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def scenes(score: float, count: int = 4) -> list[dict[str, Any]]:
    """Pictures with two objects of this score, as the detector's own rows."""
    calls: list[dict[str, Any]] = []
    for index in range(count):
        rows = np.zeros((1, 64, 5), np.float32)
        rows[0, 3] = [10 + index, 10, 90, 90, score]
        rows[0, 9] = [200, 200 + index, 300, 400, score]
        calls.append({"x": rows})
    return calls


@pytest.mark.parametrize("early", [False, True], ids=["detections alone", "beside an early output"])
def test_all_detections_lost_is_no_agreement(early: bool, tmp_path: Path) -> None:
    """Scores just above the threshold beside boxes of hundreds: no 8-bit step keeps them."""
    model = detector(tmp_path / "detector.onnx", early=early)
    options: dict[str, Any] = {"quantize": "agreement=0.99", "calibration": scenes(0.51)}
    with pytest.raises(
        PassError, match=r"do not agree in 99.00% .* at best the worst output has 0 by f1 of %found"
    ):
        irsplit.compile_model(model, tmp_path / "bundle", "head", **options)
    assert not (tmp_path / "bundle").exists()


def test_detections_that_stay_are_an_agreement_and_the_measure_is_told(tmp_path: Path) -> None:
    model = detector(tmp_path / "detector.onnx", early=True)
    options: dict[str, Any] = {"boundary": "agreement=0.99", "calibration": scenes(120.0)}
    compiled = irsplit.compile_model(model, tmp_path / "bundle", "head", report=True, **options)
    texts = [remark.text for remark in compiled.remarks]
    assert "%rows cannot change at the boundary, and no agreement is asked of them" in texts
    assert "agreement 1 by f1 of %found on 4 calls, the worst of 2 readings of the outputs" in texts
    told = compiled.manifest.raw["agreement"]
    assert (told["target"], told["share"], told["unreached"], told["calls"]) == (
        0.99,
        1.0,
        ["rows"],
        4,
    )
    assert told["worst"] == {"measure": "f1", "outputs": ["found"], "share": 1.0, "compared": 16}
    assert '"agreement": {"target"' in (tmp_path / "bundle" / "report.json").read_text()


def test_an_agreement_of_nothing_is_refused(tmp_path: Path) -> None:
    model = detector(tmp_path / "detector.onnx")
    with pytest.raises(PassError, match="nothing to compare: nothing was detected in any call"):
        irsplit.compile_model(
            model,
            tmp_path / "bundle",
            "head",
            boundary="agreement=0.9",
            calibration=scenes(0.1),
            agreement_measure="f1",
        )


def test_the_measure_is_an_option_of_every_door(tmp_path: Path) -> None:
    file = tmp_path / "measure.py"
    file.write_text("def always(expected, found):\n    return 1\n")
    model = detector(tmp_path / "detector.onnx")
    options: dict[str, Any] = {"quantize": "agreement=0.99", "calibration": scenes(0.51)}
    split = irsplit.split_bytes(
        model.read_bytes(), "head", agreement_measure=f"{file}:always", **options
    )
    assert f"measure={file}:always".encode() in split.files["manifest.json"]
    with pytest.raises(IrsplitError, match="has no effect without agreement=SHARE"):
        irsplit.compile_model(model, tmp_path / "bundle", "head", agreement_measure="f1")
