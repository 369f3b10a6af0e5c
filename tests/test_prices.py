"""Prices of boundary tensors that were not measured, and limits that exclude each other."""

import pytest

from irsplit.base.errors import PlanError
from irsplit.ir import parse_model
from irsplit.passes.analysis.cuts import find_cuts
from irsplit.passes.base import Context
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.planning.prices import transfer_options
from irsplit.passes.planning.stages import Stages, chains
from irsplit.profiles import CodecSpeed
from irsplit.profiles.measured import MeasuredTransfer

TEXT = """
graph @main(%x: u8[1,1000]) -> (%y) {
  %a = onnx.Relu(%x) : f32[1,2000]
  %b = onnx.Relu(%a) : i64[1,100]
  %y = onnx.Relu(%b) : f32[1,10]
}
"""


def parts() -> Stages:
    (found,) = chains(find_cuts(parse_model(TEXT).entry))
    return found


@pytest.mark.parametrize(
    ("codec", "bits", "floats", "integers"),
    [
        ("raw", 0, 8000, 800),
        ("zstandard", 0, 5768, 800),  # 8000 / 1.387; nothing is known of 64-bit integers
        ("static-rans", 0, 4609, 800),
        ("raw", 8, 2000, 800),
        ("zstandard", 8, 1280, 800),  # one byte an element, then 1.563
        ("static-rans", 4, 500, 800),  # 2.003 * 8 / 4
    ],
)
def test_published_ratios_by_type(codec: str, bits: int, floats: int, integers: int):
    found = transfer_options(parts(), codec, bits, {}, {}, {})
    assert {name: [c.size_bytes for c in ways] for name, ways in found.items() if name != "x"} == {
        "a": [floats],
        "b": [integers],
    }


def test_speeds_are_those_of_the_device_and_the_server():
    here, there = ({"zstandard": CodecSpeed(speed, 2 * speed)} for speed in (10**6, 10**8))
    (way,) = transfer_options(parts(), "zstandard", 0, here, there, {})["a"]
    assert (way.encode_ns, way.decode_ns) == (8_000_000, 40_000)


def test_what_was_measured_counts_unless_the_tensor_is_quantized_since():
    measured = {"a": (MeasuredTransfer("zstandard", 123, 4, 5),)}
    assert transfer_options(parts(), "zstandard", 0, {}, {}, measured)["a"] == measured["a"]
    assert transfer_options(parts(), "zstandard", 8, {}, {}, measured)["a"][0].size_bytes == 1280


def test_auto_has_all_ways_and_inputs_always_their_baselines():
    found = transfer_options(parts(), "auto", 0, {}, {}, {})
    assert [way.codec for way in found["a"]] == ["raw", "zstandard", "static-rans"]
    assert [way.codec for way in transfer_options(parts(), "raw", 0, {}, {}, {})["x"]] == [
        "raw",
        "zstandard",
    ]


def test_the_codec_of_every_tensor_is_in_the_plan():
    for uplink, codec in (("1Mbit/s", "static-rans"), ("100Gbit/s", "raw")):
        choice = (
            ChooseCut(link=f"3g,up={uplink}", codec="auto", bits=8)
            .choose(parse_model(TEXT), Context())
            .to_json()
        )
        sent = [
            switch for row in choice["ranked"] for switch in row["sent"] if switch["tensor"] == "a"
        ]
        assert [(switch["to"], switch["codec"]) for switch in sent] == [("server", codec)]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (("device=1ns",), None),
        (("latency=1ns",), "limit latency=1 ns cannot be met: every cut needs at least"),
        (
            ("server=0ns", "device=0ns"),
            "limit device=0 ns cannot be met together with server=0 ns: device is then at",
        ),
        (
            ("bytes=9kB", "server=0ns", "device=0ns"),
            "limit device=0 ns cannot be met together with server=0 ns: device",
        ),
        (("energy=1J",), "has no active_power"),
    ],
)
def test_which_limit_binds(limits: tuple[str, ...], text: str | None):
    choose = ChooseCut(link="wifi", limit=limits)
    if text is None:
        assert choose.choose(parse_model(TEXT), Context()).ranked[0].row.allowed
        return
    with pytest.raises(PlanError) as refused:
        choose.choose(parse_model(TEXT), Context())
    assert text in str(refused.value)


def test_a_link_without_radio_power_is_said():
    choice = ChooseCut(device="jetson-tk1-cpu", link="5g", objective="energy").choose(
        parse_model(TEXT), Context()
    )
    assert choice.notes[0] == "link 5g has no radio power: the energy is that of computing alone"
