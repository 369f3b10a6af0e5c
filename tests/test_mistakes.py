"""What users get wrong at the command line: one line says what, where and how to fix it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
from irsplit.base.errors import EngineError
from irsplit.cli import main

DIGITS = Path(__file__).parent.parent / "examples" / "digits"

MISTAKES = {
    "": "arguments are required: COMMAND; see 'irsplit --help'",
    "cut MODEL": "there is no command 'cut'; did you mean 'cuts'? See 'irsplit --help'",
    "frob MODEL": "there is no command 'frob'; known: cuts, extract, profile",
    "completion tcsh": "choose from 'bash', 'zsh', 'fish'",
    "cuts": "arguments are required: model; see 'irsplit cuts --help'",
    "cuts nothere.onnx": "nothere.onnx: no such file",
    "cuts .": ".: is a folder; give a model file",
    "cuts text.md": "unknown kind of model file '.md'; irsplit reads",
    "cuts MODEL --max-tensors 0": "--max-tensors: '0' is no whole number above 0",
    "cuts MODEL --state a=b": "give INPUT=OUTPUT with one of the inputs image",
    "compile MODEL": "say where the bundle goes with -o DIR",
    "compile MODEL -o out --cut bottleneck/rel": (
        "no cut 'bottleneck/rel'; did you mean bottleneck/relu? legal cuts"
    ),
    "compile MODEL -o out --cut 5": "cut '5' is not legal: %down/relu is pending, still read by",
    "compile MODEL -o out --place phone --place server": (
        "unknown place 'phone'; places: device, server"
    ),
    "compile MODEL -o out --quantize int7": "unknown boundary 'int7'; give one of lossless, int8",
    "compile MODEL -o out --quantize int8": (
        "no calibration data for %bottleneck/relu; give calibration inputs"
    ),
    "compile MODEL -o out --quantize int8 --calibration wrong.npz": (
        "wrong.npz: input 'image' is float64[3]; give f32"
    ),
    "compile MODEL -o out --quantize int8 --calibration empty": (
        "no inputs in empty; give .npy, .npz, images or .wav"
    ),
    "compile MODEL -o out --codec zip": "unknown codec 'zip'; known codecs: raw",
    "plan MODEL --codec zip": "unknown codec 'zip'; known codecs: raw",
    "report MODEL --codec zip": "unknown codec 'zip'; known codecs: raw",
    "compile MODEL -o out --pipeline partition{cut=4": "column 16: expected an option",
    "compile MODEL -o out --pipeline partition{cuts=4}": (
        "no option 'cuts'; its options: cut, max-tensors, places"
    ),
    "compile MODEL -o out --pipeline frob": "unknown pass 'frob'; known passes: assume-sizes",
    "compile MODEL -o out --pipeline partition{cut=4} --state auto": (
        "--state would too; put the option into"
    ),
    "compile MODEL -o out --link lte --limit memory=1MB": (
        "--link, --limit: only for a plan, which needs --device"
    ),
    "compile MODEL -o out --device nokia": "unknown device 'nokia'; known: iphone-8",
    "compile MODEL -o out --device pixel-2 --limit memory=64": (
        "'' is not a unit of size; write one of: B, kB"
    ),
    "compile MODEL -o out --device pixel-2 --limit memory=1kB": (
        "no cut keeps memory=1 kB; loosen a limit"
    ),
    "compile MODEL -o out --device pixel-2 --objective energy": (
        "has no active_power, so energy cannot be planned"
    ),
    "compile MODEL -o out --external-over -5": "--external-over: '-5' is no whole number above 0",
    "compile MODEL -o out --target digits": (
        "--target: only for build files (.toml), and this is a model; leave it out"
    ),
    "compile build.toml -o out": (
        '-o: a build file has these itself: the folder as output = "DIR" at its top'
    ),
    "compile build.toml --target nope": "there is no target 'nope'; targets: digits",
    "plan MODEL --load many": "--load: 'many' is no whole number above 0",
    "plan MODEL --link wify": "unknown link 'wify'; known: 3g",
    "verify nothere": "nothere: no such bundle; make one with 'irsplit compile MODEL -o nothere'",
    "verify bundle --dim image=x": "dim 'image=x': give SYMBOL=N, INPUT=N or INPUT.AXIS=N",
    "verify bundle --dim picture=3": "no input has that dimension; those that vary: image, image.0",
    "verify bundle --model text.md": (
        "is not the model that bundle was compiled from; give digits.onnx"
    ),
    "run bundle": "input 'image' is missing; give f32",
    "run MODEL": "not a bundle, it has no manifest.json; make one with 'irsplit compile'",
    "apply bundle text.md -o out": "text.md: is no patch; make one with 'irsplit delta'",
    "header bundle": "say the size of the symbolic dims (--dim N)",
    "header bundle --boundary 4": "has no boundary 4; it has 1, numbered from 0",
    "serve bundle --port 99999": "99999 is no port; give 1 to 65535, or 0 for a free one",
    "serve bundle --grace -1": "-1 s to finish when told to stop: give 0 or more",
    "serve bundle bundle": "is given twice; give it once, or under another name (NAME=BUNDLE)",
    "serve bundle --max-held-bytes 9": "raise the limit of all messages, or lower that of a frame",
    "serve bundle --host 0.0.0.0": "give a token, a TLS certificate and its key, or allow",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    irsplit.compile_model(DIGITS / "digits.onnx", folder / "bundle")
    (folder / "text.md").write_text("a text\n")
    (folder / "build.toml").write_text(f'[targets.digits]\nmodel = "{DIGITS / "digits.onnx"}"\n')
    (folder / "empty").mkdir()
    np.savez(folder / "wrong.npz", image=np.zeros(3))
    return folder


@pytest.mark.parametrize("line", MISTAKES)
def test_one_line_says_how_to_fix_it(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert (
        exit_code(
            [str(DIGITS / "digits.onnx") if word == "MODEL" else word for word in line.split()]
        )
        == 2
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert MISTAKES[line] in captured.err
    assert sorted(folder.rglob("*")) == before


def exit_code(words: Sequence[str]) -> int | str | None:
    try:
        return main(words)
    except SystemExit as left:  # argparse, for words that it does not understand
        return left.code


PICTURE = {"image": np.zeros((1, 1, 16, 16), np.float32)}
WRONG_CALLS = [
    ({"img": PICTURE["image"]}, "the model has no input 'img'; its inputs: image"),
    (
        [{"image": np.zeros((1, 1, 16, 16))}],
        "input 'image' is float64[1, 1, 16, 16]; give f32[?, 1, 16, 16]",
    ),
    (
        [PICTURE["image"]],
        "inputs are a ndarray; give arrays by name: {'image': f32[?, 1, 16, 16]}",
    ),
]


@pytest.mark.parametrize(("calibration", "said"), WRONG_CALLS)
def test_calibration_that_does_not_fit(calibration: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as refusal:
        irsplit.compile_model(
            DIGITS / "digits.onnx", tmp_path / "out", boundary="int8", calibration=calibration
        )
    assert str(refusal.value) == said


def test_one_stands_for_a_list_of_one(tmp_path: Path) -> None:
    model, folders = str(DIGITS / "digits.onnx"), [tmp_path / "one", tmp_path / "list"]
    irsplit.compile_model(
        model, folders[0], "down/relu", dim="image.0=2", boundary="int8", calibration=PICTURE
    )
    irsplit.compile_model(
        model, folders[1], ["down/relu"], dim=["image.0=2"], boundary="int8", calibration=[PICTURE]
    )
    one, listed = ((folder / "manifest.json").read_bytes() for folder in folders)
    assert one == listed
    assert irsplit.read_model(model).dialect == "onnx"


def test_inputs_without_names(folder: Path) -> None:
    with pytest.raises(EngineError, match="inputs are a ndarray; give arrays by name"):
        irsplit.DeviceSession(folder / "bundle").start(PICTURE["image"])  # type: ignore[arg-type]
