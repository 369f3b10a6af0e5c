"""The packet-level link: the kernel's TCP meets real losses, with the congestion control asked."""

import random
from pathlib import Path

import pytest

import irsplit
from benchmarks.packets import calls_over, controls, linked, refusal, transfer
from irsplit.profiles import link

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits" / "digits.onnx"

if refusal():
    pytest.skip(
        f"NO PACKET-LEVEL LINK HERE: {refusal()}; kernel TCP was not tried", allow_module_level=True
    )


@pytest.mark.parametrize("control", controls())
def test_bytes_arrive_although_packets_are_lost(control: str):
    data = random.Random(1).randbytes(300_000)
    with linked(link("wifi,up=20Mbit/s,down=20Mbit/s,rtt=10ms,loss=3%"), control) as (
        near,
        far,
        relay,
    ):
        found = transfer(near, far, data)
    assert found.received == data
    assert found.control == control
    assert relay.lost > 0
    assert found.retransmits > 0
    assert relay.carried > len(data) // 1500


def test_calls_of_a_session_over_lost_and_damaged_packets(tmp_path: Path):
    irsplit.compile_model(DIGITS, tmp_path / "bundle", ["bottleneck/relu"])
    with linked(link("ushakov-1mbit,rtt=20ms"), "reno") as (near, far, relay):
        assert len(calls_over(near, far, tmp_path / "bundle", 10)) == 10
    assert relay.carried > 20
