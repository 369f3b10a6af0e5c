"""A second of the soak: both formats, one client and four (`benchmarks.soak` has a minute)."""

from pathlib import Path

from benchmarks.soak import page, rows


def test_every_answer_is_right_and_none_is_lost(tmp_path: Path):
    found = list(rows(tmp_path, 1.0, clients=(1, 4), plain_s=0.2))
    assert [(row.kind, row.clients) for row in found] == [
        ("onnx", 1),
        ("onnx", 4),
        ("tflite", 1),
        ("tflite", 4),
    ]
    for row in found:
        assert (row.wrong, row.lost) == (0, 0)
        assert row.calls > 20
        assert row.plain_rate > 0
        assert row.direct_ms > 0
    assert f"In all: {sum(row.calls for row in found)} calls, 0 wrong, 0 lost." in page(found, 1.0)
