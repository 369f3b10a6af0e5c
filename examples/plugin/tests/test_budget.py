"""What the package promises, on IR text and on bytes: no model file is needed to test a pass."""

import pytest
from irsplit_budget.limit_boundary import LimitBoundary
from irsplit_budget.xz import XZ

from irsplit.base.errors import PassError
from irsplit.ir import Model, parse_model
from irsplit.passes import Context, Pipeline

WHOLE = """
model test
graph @main(%x: f32[1,1000]) -> (%y) {
  %r = test.op(%x) : f32[1,100]
  %y = test.op(%r) : f32[1,100]
}
"""


def run(limit: int) -> tuple[Model, Context]:
    model, context = parse_model(WHOLE), Context()
    Pipeline.parse(f"partition{{cut=%r}},limit-boundary{{size-bytes={limit}}}").run(model, context)
    return model, context


def test_below_the_limit() -> None:
    assert run(4096)[1].remarks == []


def test_near_the_limit() -> None:
    assert run(450)[1].remarks[0].text == "segment @device sends 400 of 450 bytes"


def test_above_the_limit() -> None:
    with pytest.raises(PassError, match="segment @device sends 400 bytes, 399 are allowed"):
        run(399)


def test_printed_as_it_is_parsed() -> None:
    assert str(Pipeline((LimitBoundary(512),))) == "limit-boundary{size-bytes=512}"


def test_codec() -> None:
    data = bytes(range(16)) * 500
    payload = XZ.compress(data)
    assert len(payload) < len(data) // 20
    assert XZ.decompress(payload, len(data)) == data
    for size, damaged in (
        (len(data) - 1, payload),
        (len(data) + 1, payload),
        (len(data), payload[:-3]),
        (len(data), b"\xff" + payload[1:]),
        (len(data), payload + b"x"),
    ):
        with pytest.raises(ValueError):
            XZ.decompress(damaged, size)
