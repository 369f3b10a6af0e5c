"""State as inputs and outputs: found or named, kept with its layer, fed back by sessions."""

from pathlib import Path

import numpy as np
import pytest

import corpus
from irsplit.base.errors import PassError
from irsplit.cli import main
from irsplit.compilation.old_names import compile_model, verify_bundle
from irsplit.dialects.registry import read_model
from irsplit.engines.execute import EXACT
from irsplit.ir import Graph, Model, Value, parse_model, print_graph, verify
from irsplit.passes import Context, find_cuts
from irsplit.passes.analysis.recompute import Recompute
from irsplit.passes.bind_state import BindState, find_states
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.session import LocalSession
from stock_engines import open_model, same_bits
from transformers import decoder, encoder

TEXT = """model test
graph @main(%x: f32[1,8], %h_in: f32[1,4], %c: f32[1,4]) -> (%y, %h_out) {
  %a = test.op(%x) : f32[1,8]
  %b = test.op(%a, %h_in) : f32[1,8]
  %h_out = test.op(%b) : f32[1,4]
  %d = test.op(%b, %c) : f32[1,8]
  %y = test.op(%d) : f32[1,8]
}
"""


def bound(text: str, *state: str) -> tuple[Model, Context]:
    model, context = parse_model(text), Context()
    BindState(state).run(model, context)
    verify(model)
    return model, context


def test_state_is_loaded_and_stored_in_the_graph():
    model, _ = bound(TEXT, "h_in=h_out")
    assert (
        print_graph(model.entry)
        == """\
graph @main(%x: f32[1,8], %c: f32[1,4]) -> (%y) {
  %h_in = irsplit.load() states "h_in=h_out" {shape=[1, 4]} : f32[1,4]
  %a = test.op(%x) : f32[1,8]
  %b = test.op(%a, %h_in) states "h_in=h_out" : f32[1,8]
  %h_out = test.op(%b) states "h_in=h_out" : f32[1,4]
  %d = test.op(%b, %c) : f32[1,8]
  %y = test.op(%d) : f32[1,8]
  irsplit.store(%h_out) states "h_in=h_out"
}
"""
    )


def test_no_cut_ships_or_splits_the_state():
    model, _ = bound(TEXT, "h_in=h_out")
    legal = [cut for cut in find_cuts(model.entry) if cut.legal]
    assert [[value.name for value in cut.boundary] for cut in legal] == [
        ["a", "c"],
        ["b", "c"],
        ["d"],
    ]


def test_without_state_it_is_forwarded():
    first = find_cuts(parse_model(TEXT).entry)[0]
    assert [value.name for value in first.forwards] == ["h_in", "c"]


def test_auto_finds_by_name_and_says_so():
    model, context = bound(TEXT, "auto")
    assert [value.name for value in model.entry.inputs] == ["x", "c"]
    assert [remark.text for remark in context.remarks] == [
        "state h_in=h_out was found by its name and type"
    ]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("past_key_values.0.key present.0.key", True),
        ("past.1.value present.1.value", True),
        ("past_key_values.0.key present.0.value", False),
        ("past_key_values.0.key present.1.key", False),
        ("state stateN", True),
        ("lstm_state_in lstm_state_out", True),
        ("hi0 ho0", True),
        ("c0 cn", True),
        ("h0 cn", False),
        ("hidden_1 hidden_1_out", True),
        ("cache_k_in cache_k_out", True),
        ("image mask", False),
        ("input output", False),
        ("audio_in audio_out", False),
    ],
)
def test_names_that_tell_a_state(names: str, found: bool):
    before, after = names.split()
    signature = f'(%"{before}": f32[1,4]) -> (%"{after}")'
    graph = parse_model(
        f'model test graph @main{signature} {{ %"{after}" = test.op(%"{before}") : f32[1,4] }}'
    ).entry
    assert bool(find_states(graph)) == found


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            "h=h_out",
            "give INPUT=OUTPUT with one of the inputs x, h_in, c and one of the outputs y, h_out",
        ),
        ("x=h_out", "differ in type or shape"),
        ("h_out", "give INPUT=OUTPUT"),
    ],
)
def test_what_is_no_state_is_refused(state: str, reason: str):
    with pytest.raises(PassError, match=reason):
        bound(TEXT, state)


def test_one_output_is_one_state():
    with pytest.raises(PassError, match="belongs to another state already"):
        bound(TEXT, "h_in=h_out", "c=h_out")


def test_a_decoder_is_cut_between_layers_without_shipping_its_cache(tmp_path: Path):
    path = decoder(tmp_path / "decoder.onnx")
    bundle = tmp_path / "bundle"
    compiled = compile_model(path, bundle, ["layer0", "layer1"], state=["auto"], remember=False)
    assert [
        [spec.name for spec in boundary.tensors] for boundary in compiled.manifest.boundaries
    ] == [
        ["layer0"],
        ["layer1"],
    ]
    states = [
        [f"{info.input}={info.output}" for info in segment.state]
        for segment in compiled.manifest.segments
    ]
    assert states == [
        [f"past_key_values.{layer}.{kind}=present.{layer}.{kind}" for kind in ("key", "value")]
        for layer in range(3)
    ]
    assert [info.name for info in compiled.manifest.inputs] == ["input_ids"]
    calls = [{"input_ids": np.array([[token]])} for token in (3, 1, 4, 1, 5, 9)]
    assert same_bits(by_hand(path, calls), run(bundle, calls))
    outcome = verify_bundle(bundle, path, calls=calls)
    assert outcome.bit_equal
    assert outcome.holds


def by_hand(path: Path, calls: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Logits of a decoder whose caller feeds the cache back."""
    engine = open_model(path)
    cache = {name: np.zeros((1, 2, 0, 8), np.float32) for name in engine.inputs[1:]}
    logits: list[np.ndarray] = []
    for call in calls:
        outputs = engine.run([(call | cache)[name] for name in engine.inputs])
        cache = {
            name.replace("present", "past_key_values"): o
            for name, o in zip(engine.outputs, outputs, strict=True)
        }
        logits.append(cache.pop("logits"))
    return logits


def run(bundle: Path, calls: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = LocalSession(bundle, EXACT)
    return [session.run(call)["logits"] for call in calls]


def first_shape(state: str, *dims: str) -> object:
    text = f"graph @main(%x: f32[1,8], %{state}: f32[batch,past_len,?,4]) -> (%y, %n) {{"
    text += f" %n = test.op(%{state}) : f32[batch,?,?,4] %y = test.op(%x, %n) : f32[1,8] }}"
    model = parse_model(f"model test {text}")
    BindState((f"{state}=n",), dims).run(model, Context())
    return model.entry.nodes[0].attributes["shape"]


def test_a_state_begins_as_a_history_of_nothing_or_as_the_user_says():
    assert first_shape("h") == [1, 0, 1, 4]
    assert first_shape("h", "past_len=3") == [1, 3, 1, 4]
    assert first_shape("h", "h=2", "batch=5") == [2, 2, 2, 4]
    assert first_shape("h", "h.0=6", "h=2") == [6, 2, 2, 4]


@pytest.mark.parametrize(
    ("dim", "reason"),
    [
        (
            "heads=2",
            r"no input has that dimension; those that vary: h.0, h, batch, h.1, past_len, h.2",
        ),
        ("h.3=2", "no input has that dimension"),
        ("batch", "give SYMBOL=N, INPUT=N or INPUT.AXIS=N"),
        ("batch=-1", "give SYMBOL=N"),
    ],
)
def test_sizes_that_no_state_has_are_refused(dim: str, reason: str):
    with pytest.raises(PassError, match=reason):
        first_shape("h", dim)


def test_a_session_begins_with_the_sizes_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = decoder(tmp_path / "decoder.onnx", 2)
    words = ["compile", str(path), "-o", str(tmp_path / "bundle"), "--cut", "layer0"]
    assert (
        main([*words, "--state", "auto", *(f"--dim=past_key_values.{n}.key.2=1" for n in (0, 1))])
        == 0
    )
    shapes = [
        info.shape
        for segment in Manifest.load(tmp_path / "bundle").segments
        for info in segment.state
    ]
    assert shapes == [(1, 2, 1, 8), (1, 2, 0, 8)] * 2
    assert main([*words, "--dim", "past=1"]) == 2
    assert (
        "dim 'past=1': no input has that dimension; those that vary: past_key_values.0.key.2"
        in capsys.readouterr().err
    )


def test_reset_forgets_the_cache(tmp_path: Path):
    path = decoder(tmp_path / "decoder.onnx", 2)
    compile_model(path, tmp_path / "bundle", ["layer0"], state=["auto"], remember=False)
    session = LocalSession(tmp_path / "bundle", EXACT)
    tokens = [{"input_ids": np.array([[token]])} for token in (7, 3)]
    with_cache = session.run(tokens[0])["logits"], session.run(tokens[1])["logits"]
    session.reset()
    without = session.run(tokens[1])["logits"]
    session.reset()
    again = session.run(tokens[0])["logits"], session.run(tokens[1])["logits"]
    assert same_bits(with_cache, again)
    assert not same_bits([without], [again[1]])


def test_an_encoder_with_masks_has_a_cut_after_every_layer(tmp_path: Path):
    path = encoder(tmp_path / "encoder.onnx")
    graph = read_model(path).entry
    without = _tensors(graph, None)
    assert not without & {f"layer{layer}" for layer in range(2)}
    rng = np.random.default_rng(0)
    calls = [
        {
            "input_ids": rng.integers(0, 50, (2, length)),
            "attention_mask": rng.integers(0, 2, (2, length)),
        }
        for length in (5, 9)
    ]
    engine = open_model(path)
    expected = [engine.run([call[name] for name in engine.inputs])[0] for call in calls]
    for tensor in ("embedded", "layer0", "layer1", "layer2"):
        compiled = compile_model(path, tmp_path / tensor, [tensor], remember=False)
        names = [spec.name for spec in compiled.manifest.boundaries[0].tensors]
        assert names == ([tensor] if tensor == "layer2" else [tensor, "attention_mask"])
        session = LocalSession(tmp_path / tensor, EXACT)
        assert same_bits(expected, [session.run(call)["logits"] for call in calls])


def _tensors(graph: Graph, recompute: Recompute | None) -> set[str]:
    return {
        "+".join(map(_name, cut.tensors))
        for cut in find_cuts(graph, 1, None, recompute)
        if cut.legal
    }


def _name(value: Value) -> str:
    return value.name


@pytest.mark.parametrize(
    ("name", "cut", "states"),
    [
        ("silero_vad.onnx", "5", ["state=stateN"]),
        ("ort_tiny_loop.onnx", "42", ["hi0=ho0", "ci0=co0"]),
        ("dtln1_while.tflite", "13", ["serving_default_input_3:0=StatefulPartitionedCall:1"]),
    ],
)
def test_streaming_models_of_the_corpus(name: str, cut: str, states: list[str], tmp_path: Path):
    found = [model for model in corpus.models("models") if model.name == name]
    if not found:
        pytest.skip(f"no corpus at {corpus.DEFAULT}")
    model = found[0]
    compile_model(model.path, tmp_path / "bundle", [cut], state=states, remember=False)
    pairs = [pair.split("=") for pair in states]
    names = [source.name for source in model.inputs]
    engine, session = open_model(model.path), LocalSession(tmp_path / "bundle", EXACT)
    outputs = [value.name for value in read_model(model.path).entry.outputs]
    first = dict(zip(names, corpus.feeds(model)[0], strict=True))
    kept = {before: np.zeros_like(first[before]) for before, _ in pairs}
    for values in corpus.feeds(model, 4):
        call = dict(zip(names, values, strict=True)) | kept
        expected = dict(zip(outputs, engine.run([call[name] for name in names]), strict=True))
        given = session.run({name: call[name] for name in names if name not in kept})
        kept = {before: expected.pop(after) for before, after in pairs}
        assert same_bits(list(expected.values()), [given[name] for name in expected])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = decoder(tmp_path / "decoder.onnx", 2)
    assert main(["cuts", str(path), "--state", "auto", "--rematerialise", "--legal"]) == 0
    assert "state past_key_values.0.key=present.0.key was found" in capsys.readouterr().err
    assert (
        main(
            ["compile", str(path), "-o", str(tmp_path / "b"), "--cut", "layer0", "--state", "auto"]
        )
        == 0
    )
    assert main(["verify", str(tmp_path / "b"), "--model", str(path)]) == 0
    assert "bit-equal" in capsys.readouterr().out
    assert (
        main(["compile", str(path), "-o", str(tmp_path / "c"), "--cut", "layer0", "--state", "a=b"])
        == 2
    )
    assert "state 'a=b'" in capsys.readouterr().err
