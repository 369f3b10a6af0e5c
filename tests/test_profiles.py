"""Profiles: irsplit's read to the published figures, and faults of a file are named."""

from pathlib import Path

import pytest

from irsplit.base.errors import PlanError
from irsplit.profiles import device, link, names
from irsplit.profiles.units import parse

LINK = """
kind = "link"
[sources.me]
text = "measured"
date = "2024-01"
[values]
uplink = { value = 1.5, unit = "Mbit/s", source = "me" }
downlink = { value = 3, unit = "Mbit/s", source = "me" }
"""


def test_every_profile_that_comes_with_irsplit_reads():
    assert {"3g", "4g", "5g", "lte", "wifi", "ushakov-1mbit"} <= set(names("link"))
    assert all(link(name).name == name for name in names("link"))
    assert all(device(name).bytes_s > 0 for name in names("device"))


def test_radio_power_is_alpha_times_rate_plus_beta():
    # 868.98 mW/Mbit/s * 1.1 Mbit/s + 817.88 mW = 1773.758 mW
    assert link("3g").up_uw == 1_773_758
    assert link("wifi").down_uw == round(137_010 * 54.97 + 132_860)


def test_the_tail_is_charged_only_on_request():
    assert link("4g").tail_nj == 0
    assert link("4g,tail=published").tail_nj == 12_760_000_000


def test_changes_after_commas():
    changed = link("wifi,rtt=20ms,up=5Mbit/s,loss=1%")
    assert (changed.rtt_ns, changed.up_bit_s, changed.loss_ppm) == (20_000_000, 5_000_000, 10_000)
    assert changed.up_goodput_bit_s == 4_950_000


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(LINK)
    assert link(str(path)).up_bit_s == 1_500_000


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("value = 1.5", "value = -1.5",
         r"mine\.toml: values\.uplink is -1\.5 Mbit/s; it must be positive"),
        ("value = 1.5", "value = nan", r"values\.uplink is .*; give a finite number"),
        ("value = 1.5", "value = '1.5'", r"values\.uplink is '1\.5'; give a finite number"),
        ("1.5, unit = \"Mbit/s\"", "1.5, unit = \"Mbps\"",
         r"'Mbps' is not a unit of rate; write one of: bit/s, kbit"),
        ("1.5, unit = \"Mbit/s\"", "1.5, unit = \"ms\"", "unit 'ms' is not a unit of rate"),
        ("uplink = ", "# uplink = ",
         r"values\.uplink is missing; add it with value, unit and source"),
        ("uplink = ", "upload = ",
         r"values\.upload is not a field of this profile; fields: uplink"),
        ("1.5, unit = \"Mbit/s\", source = \"me\"", "1.5, unit = \"Mbit/s\", source = \"you\"",
         r"cites source 'you'"),
        ("date = ", "day = ", r"sources\.me needs a text and a date"),
        ("{ value = 1.5, unit = \"Mbit/s\", source = \"me\" }", "1.5",
         r"values\.uplink must be \{ value"),
        ("kind = \"link\"", "kind = \"device\"",
         r"kind is 'device'; a profile of kind 'link' is wanted"),
        ("kind = ", "kind ", "not a TOML file"),
    ],
)  # fmt: skip
def test_a_bad_profile_is_named(tmp_path: Path, old: str, new: str, text: str):
    path = tmp_path / "mine.toml"
    assert old in LINK
    path.write_text(LINK.replace(old, new, 1))
    with pytest.raises(PlanError, match=text):
        link(str(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("6g", "unknown link '6g'; known: 3g, 4g"),
        ("no/such.toml", "no/such.toml: cannot be read: No such file"),
        ("wifi,speed=3", "unknown change 'speed=3'"),
        ("wifi,rtt=fast", "'fast' is not a number with a unit"),
        ("wifi,up=0Mbit/s", "out of range"),
    ],
)
def test_a_bad_link_argument_is_named(name: str, text: str):
    with pytest.raises(PlanError, match=text):
        link(name)


def test_unknown_device_is_named():
    with pytest.raises(PlanError, match=r"unknown device 'pixel-99'; known: .*pixel-2"):
        device("pixel-99")


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [("64MB", "size", 64_000_000), ("1.5 KiB", "size", 1536), ("20ms", "time", 20_000_000)],
)
def test_quantities(text: str, dimension: str, value: int):
    assert parse(text, dimension) == value
