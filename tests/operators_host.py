"""Stock onnxruntime with our operators: does a library give and take the frames of some cases?

As a script (`python operators_host.py LIBRARY CASES`) it needs little else: a library with
sanitizers is tested so.
"""

import ctypes
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Host:
    """onnxruntime with a library of ours. Tensors go by ONNX's number of their type."""

    def __init__(self, library: Path) -> None:
        self._library = library

    def session(self, model: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(str(self._library))
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(
    session: Any, arrays: Sequence[Array], numbers: Sequence[int]
) -> list[tuple[list[int], bytes]]:
    """Shape and bytes of every output."""
    made = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    names = [info.name for info in session.get_inputs()]
    values = {
        name: made(np.asarray(array), number)
        for name, array, number in zip(names, arrays, numbers, strict=True)
    }
    outputs = session.run_with_ort_values(None, values)
    return [
        (each.shape(), ctypes.string_at(each.data_ptr(), each.tensor_size_in_bytes()))
        for each in outputs
    ]


UINT8 = 2


def decode(session: Any, frame: bytes) -> list[tuple[list[int], bytes]]:
    return run(session, [np.frombuffer(frame, np.uint8)], [UINT8])


@dataclass(frozen=True)
class Case:
    """Models of one operator each, and what goes through them."""

    encoder: bytes
    decoder: bytes
    arrays: list[Array]
    numbers: list[int]
    frame: bytes
    decoded: list[tuple[list[int], bytes]]


def check(host: Host, case: Case, damaged: Sequence[bytes]) -> None:
    """The case's frame both ways; damaged ones are refused, and the next call is as the first."""
    assert run(host.session(case.encoder), case.arrays, case.numbers) == [
        ([len(case.frame)], case.frame)
    ]
    session = host.session(case.decoder)
    assert decode(session, case.frame) == case.decoded
    for frame in damaged:
        assert "irsplit.DecodeFrame: " in refusal(session, frame)
    assert decode(session, case.frame) == case.decoded


def refusal(session: Any, frame: bytes) -> str:
    """What is said of a frame, or nothing. onnxruntime's errors have no base but Exception."""
    try:
        decode(session, frame)
    except Exception as error:
        return str(error)
    return ""


def damages(frame: bytes) -> list[bytes]:
    """The frame cut short, and with one byte changed, in some places."""
    cuts = [frame[:size] for size in sorted({0, 1, 23, 24, len(frame) // 2, len(frame) - 1})]
    places = range(0, len(frame), 1 + len(frame) // 16)
    return cuts + [
        frame[:place] + bytes([frame[place] ^ 0x55]) + frame[place + 1 :] for place in places
    ]


if __name__ == "__main__":
    for each in pickle.loads(Path(sys.argv[2]).read_bytes()):
        check(Host(Path(sys.argv[1])), each, damages(each.frame))
    print("ok")
