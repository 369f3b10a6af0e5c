"""The operators for ONNX Runtime: on the stock package they give our frames and take them."""

import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import operators_host
from framing import FRAMABLE, Array, boundaries_with_arrays
from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import UnsupportedError
from irsplit.dialects.onnx.schema import ELEMENT_CODES
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.frame.descriptor import FrameSchema, QuantizationSpec, TensorSpec
from irsplit.runtime.run import ort_operators as operators
from operators_host import Case, Host, check, damages, decode
from test_c_core import ROOT, SANITIZERS, SOURCES, WARNINGS
from test_hostile_frames import with_crc
from test_static_rans import feature_map, trained
from tools import needs, needs_compiler

ORT = ROOT / "runtime" / "c" / "ort"
COMMAND = ("-fPIC", "-fvisibility=hidden", f"-I{ROOT / 'runtime' / 'c' / 'include'}")
NUMBERS = {
    name: ELEMENT_CODES[BY_NAME[name]] for name in FRAMABLE if name not in ("c64", "c128", "f8e8m0")
}
"""ONNX's numbers of element types; of the others onnxruntime gives operators no tensors."""

MAP = (1, 7, 6, 37)
SPECS = (
    TensorSpec("bytes", "u8", (3,)),
    TensorSpec("coarse", "f32", (None, 5), QuantizationSpec((0.1,), (0,), outliers=True)),
    TensorSpec("scalar", "i64", ()),
    TensorSpec("half", "f16", (None, 6)),
    TensorSpec("mask", "bool", (5,)),
    TensorSpec("empty", "f64", (0, 2)),
    TensorSpec("brain", "bf16", (2, None)),
    TensorSpec("eight", "f8e5m2", (4,)),
)
MIXED = FrameSchema(1, "mixed", SPECS)
RANS = FrameSchema(
    0, "rans", (trained("u8", MAP, 1), replace(trained("f32", MAP, 1, "NCHW"), name="real"))
)


def mixed_arrays(batch: int) -> list[Array]:
    rng = np.random.default_rng(batch)
    coarse = rng.normal(size=(batch, 5)).astype(np.float32) * 4
    coarse[:1, :3] = np.nan, 1e9, -0.0
    return [
        np.array([1, 2, 3], np.uint8), coarse, np.array(-5),
        rng.normal(size=(batch, 6)).astype(np.float16), np.array([1, 0, 1, 1, 0], np.bool_),
        np.zeros((0, 2)), rng.integers(0, 1 << 16, (2, batch), np.uint16),
        np.arange(4, dtype=np.uint8),
    ]  # fmt: skip


def rans_arrays() -> list[Array]:
    return [
        feature_map(5, MAP, "u8"),
        np.ascontiguousarray(feature_map(5, MAP, "f32").transpose(0, 3, 1, 2)),
    ]


def model(
    operator: str, boundary: FrameSchema, descriptor: bytes = b"", **attributes: Any
) -> bytes:
    """One node of an operator on the boundary's tensors, other types as in `attributes`."""
    infos = [
        helper.make_tensor_value_info(
            spec.name, ELEMENT_CODES[BY_NAME[attributes.pop(spec.name, spec.dtype)]], [*spec.shape]
        )
        for spec in boundary.tensors
    ]
    frame = [helper.make_tensor_value_info("frame", TensorProto.UINT8, [None])]
    fed, made = (frame, infos) if operator == "DecodeFrame" else (infos, frame)
    names = [[info.name for info in each] for each in (fed, made)]
    attributes["descriptor"] = descriptor or boundary.to_bytes()
    graph = helper.make_graph(
        [helper.make_node(operator, *names, domain="irsplit", **attributes)], "g", fed, made
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("irsplit", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def case_of(boundary: FrameSchema, arrays: list[Array]) -> Case:
    frame = framing.encode(boundary, arrays)
    decoded = [([*array.shape], array.tobytes()) for array in framing.decode(boundary, frame)]
    numbers = [ELEMENT_CODES[BY_NAME[spec.dtype]] for spec in boundary.tensors]
    return Case(
        model("EncodeFrame", boundary),
        model("DecodeFrame", boundary),
        arrays,
        numbers,
        frame,
        decoded,
    )


def all_cases() -> list[Case]:
    return [
        *(case_of(MIXED, mixed_arrays(batch)) for batch in (4, 1, 0)),
        case_of(RANS, rans_arrays()),
    ]


@pytest.fixture(scope="module")
def host() -> Host:
    try:
        return Host(operators.library())
    except UnsupportedError as error:
        pytest.skip(f"THE OPERATORS ARE NOT CHECKED HERE: {error}")


def test_frames_are_ours(host: Host) -> None:
    for case in all_cases():
        check(host, case, damages(case.frame))


@settings(max_examples=25)
@given(drawn=boundaries_with_arrays(), data=st.data())
def test_any_boundary(
    host: Host, drawn: tuple[FrameSchema, list[Array]], data: st.DataObject
) -> None:
    boundary, arrays = drawn
    kept = [index for index, spec in enumerate(boundary.tensors) if spec.dtype in NUMBERS]
    specs = [
        replace(boundary.tensors[index], codec="raw", parameters=b"", chunk=0) for index in kept
    ]
    if kept:
        case = case_of(replace(boundary, tensors=tuple(specs)), [arrays[index] for index in kept])
        place = data.draw(st.integers(0, len(case.frame) - 1))
        check(
            host,
            case,
            [case.frame[:place] + bytes([case.frame[place] ^ 1]) + case.frame[place + 1 :]],
        )


def test_threads_share_a_session(host: Host) -> None:
    cases = [case_of(MIXED, mixed_arrays(batch)) for batch in range(40)]
    encoder, decoder = host.session(cases[0].encoder), host.session(cases[0].decoder)
    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(decode, decoder, damages(case.frame)[-1]) for case in cases[:8]]
        made = list(
            pool.map(lambda case: operators_host.run(encoder, case.arrays, case.numbers), cases)
        )
        taken = list(pool.map(lambda case: decode(decoder, case.frame), cases))
    assert made == [[([len(case.frame)], case.frame)] for case in cases]
    assert taken == [case.decoded for case in cases]
    assert all("checksum mismatch" in str(each.exception()) for each in refused)


def encode(host: Host, spec: TensorSpec, array: Array) -> None:
    """`array` for a model that takes any size where the boundary has one of its own."""
    free = replace(spec, shape=tuple(None for _ in spec.shape))
    boundary = FrameSchema(0, "one", (spec,))
    session = host.session(
        model("EncodeFrame", FrameSchema(0, "one", (free,)), boundary.to_bytes())
    )
    operators_host.run(session, [array], [NUMBERS[spec.dtype]])


def test_what_is_refused_says_what_to_do(host: Host) -> None:
    frame = case_of(RANS, rans_arrays()).frame
    for boundary, sent, limit, text in (
        (
            RANS,
            frame[:-1] + b"x",
            {},
            "checksum mismatch; its bytes changed on the way: send it again",
        ),
        (
            replace(RANS, index=5),
            frame,
            {},
            "another boundary; both sides need the same build of the same bundle",
        ),
        (RANS, frame, {"max_bytes": 100}, "more than max_bytes; raise this attribute"),
    ):
        session = host.session(model("DecodeFrame", boundary, **limit))
        with pytest.raises(Exception, match=re.escape(text)) as raised:
            decode(session, sent)
        assert type(raised.value).__name__ == "InvalidArgument"
    with pytest.raises(
        Exception, match="a tensor is too large for a frame; feed fewer samples at a time"
    ):
        encode(host, TensorSpec("a", "u8", (0, None)), np.zeros((0, 1 << 32), np.uint8))
    huge = np.array([1 << 31, 1, 1], "<u4").tobytes()
    for spec, sent, text in (
        (TensorSpec("a", "bool", (3,)), b"\2\0\0", "impossible contents; the sender is at fault"),
        (
            TensorSpec("a", "u8", (None, None, None)),
            huge,
            "more than max_bytes; raise this attribute",
        ),
    ):
        boundary = FrameSchema(0, "one", (spec,))
        head = framing.encode(
            boundary, [np.zeros((3,) if spec.dtype == "bool" else (0, 0, 0), spec.storage)]
        )[:24]
        body = head[:16] + (28 + len(sent)).to_bytes(8, "little") + sent + b"\0\0\0\0"
        with pytest.raises(Exception, match=re.escape(text)):
            decode(host.session(model("DecodeFrame", boundary)), with_crc(body))
    with pytest.raises(
        Exception, match="sizes differ from the descriptor's; feed what the bundle was made for"
    ):
        encode(host, TensorSpec("a", "f32", (None, 3)), np.zeros((2, 4), np.float32))
    with pytest.raises(
        Exception, match="a value that the element type does not have; a bool is 0 or 1"
    ):
        encode(host, TensorSpec("a", "bool", (2,)), np.array([0, 2], np.uint8).view(np.bool_))


def test_what_no_kernel_is_made_for(host: Host) -> None:
    coded = replace(MIXED, tensors=(TensorSpec("a", "u8", (3,), codec="zstandard"),))
    one = replace(MIXED, tensors=SPECS[:1])
    for made, text in (
        (
            model("DecodeFrame", coded),
            "codec is not built in; compile with --codec static-rans or --codec raw",
        ),
        (
            model("DecodeFrame", MIXED, one.to_bytes()),
            "another number of tensors than its descriptor",
        ),
        (
            model("EncodeFrame", MIXED, half="f32"),
            "another type than its descriptor says; export the bundle again",
        ),
        (
            model("DecodeFrame", MIXED, half="f32"),
            "another type than its descriptor says; export the bundle again",
        ),
        (
            model("DecodeFrame", MIXED, b"IRSD"),
            "the bytes end too early; give the bytes of a boundary's .irsd file",
        ),
    ):
        with pytest.raises(Exception, match=re.escape(text)):
            host.session(made)
    bare = onnx.load_from_string(model("DecodeFrame", MIXED))
    del bare.graph.node[0].attribute[:]
    with pytest.raises(Exception, match="descriptor"):
        host.session(bare.SerializeToString())


def host_header(folder: Path) -> Path:
    """What a host would give: our own declarations, under the name of its header."""
    declared = re.search(
        r"#else\n(.*?)\n#endif\n\n/\* C99", (ORT / "ort_abi.h").read_text(), re.DOTALL
    )
    assert declared is not None
    header = folder / "onnxruntime_c_api.h"
    header.write_text(declared[1])
    return header


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warnings(compiler: str, tmp_path: Path) -> None:
    """With our declarations; with a host's header; and a header that differs does not compile."""
    needs(compiler)
    words = [compiler, *WARNINGS, *COMMAND, "-fsyntax-only", ORT / "operators.c"]
    subprocess.run(words, check=True, timeout=300)
    header, given = host_header(tmp_path), ["-DIRS_ORT_HEADERS", f"-I{tmp_path}"]
    subprocess.run([*words, *given], check=True, timeout=300)
    declared = header.read_text()
    header.write_text(declared.replace("    void *other_29[22];", "    void *other_29[23];"))
    assert header.read_text() != declared
    refused = subprocess.run(
        [*words, *given], capture_output=True, text=True, timeout=300, check=False
    )
    assert (refused.returncode, "irs_ort_OrtApi_GetTensorMutableData" in refused.stderr) == (
        1,
        True,
    )


def built(target: Path, flags: Sequence[str]) -> Path:
    command = [
        "gcc",
        *WARNINGS,
        *COMMAND,
        *flags,
        "-shared",
        ORT / "operators.c",
        *SOURCES,
        "-o",
        target,
    ]
    subprocess.run(command, check=True, timeout=900)
    return target


def exports(library: Path) -> list[str]:
    words = ["nm", "-D", "--defined-only", str(library)]
    listed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.split()[-1] for line in listed.splitlines()]


def gcc_library(name: str) -> str:
    words = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_sanitized(tmp_path: Path) -> None:
    """Python is not built with sanitizers: their libraries come first."""
    needs_compiler("gcc", *SANITIZERS)
    library = built(tmp_path / "operators.so", [*SANITIZERS, "-O0", "-DIRS_PORTABLE"])
    (tmp_path / "cases").write_bytes(pickle.dumps(all_cases()))
    preload = {"LD_PRELOAD": f"{gcc_library('libasan.so')} {gcc_library('libubsan.so')}"}
    done = subprocess.run(
        [sys.executable, operators_host.__file__, library, tmp_path / "cases"],
        env=os.environ | preload | {"ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]


def test_the_cmake_target(tmp_path: Path) -> None:
    """With a host's header; what it builds is what the package has."""
    needs("cmake", "nm")
    host_header(tmp_path)
    options = ["-DIRS_ORT_OPERATORS=ON", f"-DIRS_ORT_INCLUDE={tmp_path}", "-DIRS_PORTABLE=ON"]
    for words in (
        ["-S", ROOT / "runtime" / "c", "-B", tmp_path / "build", *options],
        ["--build", tmp_path / "build", "--target", "irsplit_operators"],
    ):
        subprocess.run(["cmake", *words], check=True, capture_output=True, timeout=300)
    library = tmp_path / "build" / "libirsplit_operators.so"
    assert exports(library) == ["RegisterCustomOps"]
    case = all_cases()[-1]
    check(Host(library), case, damages(case.frame))


def test_both_extensions_have_the_whole_core() -> None:
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "ext-modules"
    ]
    for module, own in zip(
        modules, ("runtime/c/python.c", "runtime/c/ort/operators.c"), strict=True
    ):
        assert module["sources"] == [own, "runtime/c/irs.c"]
    included = re.findall(r'#include "(.*)"', (ROOT / "runtime" / "c" / "irs.c").read_text())
    assert sorted(included) == sorted(
        str(path.relative_to(ROOT / "runtime" / "c")) for path in SOURCES
    )


def test_only_the_entry_is_exported(host: Host) -> None:
    needs("nm")
    assert exports(operators.library()) == ["RegisterCustomOps"]


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "find_spec", lambda name: None)
    with pytest.raises(
        UnsupportedError, match=r"are not built; install a C compiler and reinstall irsplit, or"
    ):
        operators.library()
