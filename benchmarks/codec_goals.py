"""What the boundary codec is meant to reach, and whether a run of bench_codec.py reached it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
"""Rows of one table by codec."""


@dataclass(frozen=True)
class Goal:
    """`value` of a kind's rows shall be at least `least`; it is unknown for a codec left out."""

    kind: str
    text: str
    least: float
    value: Callable[[Rows], float]


def _of(codec: str, key: str) -> Callable[[Rows], float]:
    return lambda rows: rows[codec][key]


def _against(codec: str, anchor: str, key: str) -> Callable[[Rows], float]:
    return lambda rows: rows[codec][key] / rows[anchor][key]


L0, L1 = "static-rans L0", "static-rans L1"

GOALS = (
    Goal("int8", "L1 ratio", 1.78, _of(L1, "ratio")),
    Goal(
        "int8", "L1 smaller than zstd-19, share of tensors", 1, _of(L1, "smaller_than_zstd19_share")
    ),
    Goal("int8", "L1 smaller than zstd-19, mean", 0.15, _of(L1, "mean_saving_on_zstd19")),
    *(
        Goal("int8", f"L1 ratio over {image}", 1.05, _against(L1, f"{image} mosaic", "ratio"))
        for image in ("webp", "jpeg-ls", "jxl-e7")
    ),
    Goal("int8", "L1 encode over WebP's", 20, _against(L1, "webp mosaic", "encode_MB_s")),
    Goal("int8", "L1 encode, MB/s", 350, _of(L1, "encode_MB_s")),
    Goal("int8", "L1 decode, MB/s", 350, _of(L1, "decode_MB_s")),
    Goal("int8", "L0 ratio over openzl huffman", 1.04, _against(L0, "openzl huffman", "ratio")),
    Goal(
        "int8", "L0 encode over openzl huffman", 0.8, _against(L0, "openzl huffman", "encode_MB_s")
    ),
    Goal(
        "int8", "L0 decode over openzl huffman", 0.8, _against(L0, "openzl huffman", "decode_MB_s")
    ),
    Goal("int8", "L1 gain at 100 Mbit/s", 1.55, _of(L1, "gain_100_Mbit_s")),
    Goal(
        "int8",
        "L1 descriptor below 8 KB, median",
        1,
        lambda rows: 8192 / rows[L1]["descriptor_median"],
    ),
    Goal("f32", "L1 ratio", 1.62, _of(L1, "ratio")),
    Goal("f16", "L1 ratio", 1.60, _of(L1, "ratio")),
    Goal("bf16", "L1 ratio", 2.05, _of(L1, "ratio")),
    *(
        Goal(kind, "L1 encode over pcodec's", 2.5, _against(L1, "pcodec-8", "encode_MB_s"))
        for kind in ("f32", "f16", "bf16")
    ),
    Goal(
        "raw",
        "encode + CRC + decode over two memcpy, 1 MB",
        0.5,
        _of("raw frame", "rate_over_memcpy"),
    ),
)


def judged(kind: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for every goal of a kind."""
    by_codec = {row["codec"]: row for row in rows}
    for goal in GOALS:
        if goal.kind != kind:
            continue
        try:
            value = goal.value(by_codec)
        except KeyError as missing:
            yield f"  ?      {goal.text}: {missing} was not measured"
            continue
        yield (
            f"  {'met   ' if value >= goal.least else 'MISSED'} {goal.text}: {value:.3g}, goal "
            f"{goal.least:g}"
        )
