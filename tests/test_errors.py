"""Errors say what is wrong, where, and how to fix it, as one text or as fields."""

import pickle

import pytest

from irsplit.base.errors import IrsplitError, ModelError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelError("m.onnx: no graph; convert it"), "m.onnx: no graph; convert it"),
        (ModelError("no graph", where="m.onnx", remedy="convert it"),
         "m.onnx: no graph; convert it"),
        (ModelError("no graph", where="m.onnx"), "m.onnx: no graph"),
        (ModelError("no graph", remedy="convert it"), "no graph; convert it"),
        (ModelError(), ""),
    ],
)  # fmt: skip
def test_the_text_is_composed_of_the_fields(error: IrsplitError, text: str) -> None:
    assert str(error) == text


def test_an_error_of_a_worker_process_keeps_its_fields() -> None:
    error = ModelError("no graph", where="m.onnx", remedy="convert it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ModelError
    assert (copy.what, copy.where, copy.remedy) == ("no graph", "m.onnx", "convert it")


def test_a_caller_may_give_the_remedy_in_its_own_words() -> None:
    error = ModelError("no graph", remedy="pass convert=True")
    error.remedy = "give --convert"
    assert str(error) == "no graph; give --convert"
