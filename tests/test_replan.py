"""Re-planning from a manifest: the planner's answer for that link, and for others."""

import pytest

from irsplit.base.errors import BundleError
from irsplit.ir import parse_model
from irsplit.passes import Context
from irsplit.passes.choose_cut import ChooseCut
from irsplit.profiles import link
from irsplit.runtime.serving.client.cut_selection import Conditions, cut_costs, fastest

TEXT = """
graph @main(%x: f32[1,100000]) -> (%y) {
  %a = test.op(%x) : f32[1,50000]
  %b = test.op(%a) : f32[1,10]
  %c = test.op(%b) : f32[1,80000]
  %y = test.op(%c) : f32[1,5]
}
"""


def conditions(name: str, load: float = 1.0) -> Conditions:
    over = link(name)
    return Conditions(over.up_goodput_bit_s, over.down_goodput_bit_s, over.rtt_ns, load)


@pytest.mark.parametrize("planned", ["3g", "wifi"])
@pytest.mark.parametrize("now", ["3g", "wifi,rtt=30ms", "5g"])
@pytest.mark.parametrize("load", [100, 300])
def test_the_same_link_gives_the_planners_answer(planned: str, now: str, load: int):
    model = parse_model(TEXT)
    costs = cut_costs({"choice": ChooseCut(link=planned).choose(model, Context()).to_json()})
    best = ChooseCut(link=now, load=load).choose(model, Context()).ranked[0]
    found = fastest(costs, conditions(now, load / 100))
    assert found.latency_ns(conditions(now, load / 100)) == pytest.approx(best.row.value, abs=10)


def test_only_cuts_that_are_there():
    costs = cut_costs(
        {"choice": ChooseCut(link="wifi").choose(parse_model(TEXT), Context()).to_json()}
    )
    assert fastest(costs, conditions("wifi"), among=["1", "3"]).cut in ("1", "3")
    dead = Conditions(1, 1)
    assert fastest(costs, dead).cut == "device only"


def test_a_bundle_cut_by_hand_has_no_prices():
    with pytest.raises(BundleError, match="no priced cuts"):
        cut_costs({})
