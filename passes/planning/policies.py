"""The policies that choose a cut: the exact planner, and those of papers with their own limits."""

from collections.abc import Callable, Iterator, Sequence

from irsplit import planner
from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import PlanError
from irsplit.base.reading import reason
from irsplit.passes.planning.blocks import block_costs
from irsplit.passes.planning.choice import Decision, PricedStages, RankedPlacement, prefix
from irsplit.passes.planning.devices import DeviceSource
from irsplit.planner import Goal, best_cut, human, policies
from irsplit.planner.cost import CostTable, Placement

POLICIES = ("exact", "neurosurgeon", "dads", "collabdnn", "jointdnn", "ushakov")
"""The policies of irsplit itself, by the names that the pass option `rule` takes."""

ENTRY_POINTS = "irsplit.policies"
"""Group of the policies of other packages: functions of a cost table and an objective that return
a placement for every stage."""

PluginPolicy = Callable[[CostTable, str], Sequence[Placement]]

_WITHOUT_LIMITS = {
    "neurosurgeon": policies.neurosurgeon,
    "dads": policies.dads,
    "collabdnn": policies.collabdnn,
}

_JOINTDNN_LIMITS = ("energy", "server", "latency")  # battery, cloud load and QoS in the paper

_USHAKOV_LIMITS = {"memory": "memory", "cpu": "device", "link": "bytes"}
"""The planner's limits that are the maxima of the paper, by the paper's names for them."""


class PolicyNames:
    """The names of all policies, for whoever checks or lists them.

    Looking for those of other packages takes a moment, so it waits for a name that is not ours.
    """

    def __contains__(self, name: object) -> bool:
        return name in POLICIES or any(point.name == name for point in entry_points(ENTRY_POINTS))

    def __iter__(self) -> Iterator[str]:
        return iter(POLICIES)


def exact(
    priced: Sequence[PricedStages], goal: Goal, ranked: Sequence[RankedPlacement]
) -> Decision:
    """Choose the best single cut of all chains.

    Args:
        priced: The chains of one model.
        goal: The objective and the limits.
        ranked: All candidates of these chains, the best first.

    Returns:
        The decision, whose bound is its value: every single cut was compared.

    Raises:
        PlanError: Nothing keeps the limits.
    """
    rows = [candidate.row for candidate in ranked]
    row = best_cut([chain.table for chain in priced], rows, goal)
    chain = ranked[0].chain
    placements = prefix(len(chain.table.stages), row.device_stages)
    return Decision(chain, placements, row.value, row.value)


def any_pattern(priced: Sequence[PricedStages], goal: Goal) -> Decision:
    """Choose the best plan of any number of cuts, which may come back to the device.

    Args:
        priced: The chains of one model; each is planned on its own.
        goal: The objective and the limits.

    Raises:
        PlanError: No chain has a plan within the limits.
    """
    decisions: list[Decision] = []
    problems: list[PlanError] = []
    for chain in priced:
        try:
            plan = planner.plan(chain.table, goal.objective, limits=goal.limits, monotone=False)
        except PlanError as problem:
            problems.append(problem)
        else:
            decisions.append(Decision(chain, plan.placements, plan.value, plan.bound))

    if not decisions:
        raise problems[0]
    return min(decisions, key=lambda decision: decision.value)


def paper_policy(
    policy: str,
    chain: PricedStages,
    goal: Goal,
    sources: tuple[DeviceSource, DeviceSource],
    ranked: Sequence[RankedPlacement],
) -> Decision:
    """Choose by the policy of a paper, which knows one order of the model only.

    Args:
        policy: The name of the policy, any but `exact`.
        chain: The chain of the graph's own order.
        goal: The objective and the limits.
        sources: What is known of the device and of the server.
        ranked: All candidates, to explain which limit binds.

    Raises:
        PlanError: The policy does not have one of the limits, lacks one that it needs, or finds
            nothing within them.
    """
    if policy not in POLICIES:
        return plugin_policy(policy, chain, goal)
    if policy == "ushakov":
        return _ushakov(chain, goal)
    if policy == "jointdnn":
        return _jointdnn(chain, goal, *sources, ranked)
    if goal.limits:
        raise PlanError(f"rule {policy} has no limits; leave them out, or use rule exact")
    choice = _WITHOUT_LIMITS[policy](chain.table, goal.objective)
    return Decision(chain, choice.placements, choice.value)


def plugin_policy(policy: str, chain: PricedStages, goal: Goal) -> Decision:
    """Choose by the policy of another package.

    Args:
        policy: The name of its entry point.
        chain: The chain of the graph's own order.
        goal: The objective. Such policies know no limits.

    Raises:
        PlanError: There are limits, or the placements are none that a chain of cuts can have.
        IrsplitError: The policy cannot be loaded.
    """
    if goal.limits:
        raise PlanError(f"rule {policy} has no limits; leave them out, or use rule exact")

    point = next(point for point in entry_points(ENTRY_POINTS) if point.name == policy)
    choose: PluginPolicy = load(point, "policy")
    try:
        placements = tuple(choose(chain.table, goal.objective))
    except Exception as error:
        raise PlanError(f"rule {policy} of {point.value} failed: {reason(error)}") from error

    device_stages = placements.count(Placement.DEVICE)
    in_order = prefix(len(placements), device_stages)
    if placements != in_order:
        raise PlanError(
            f"rule {policy} comes back to the device; "
            "it must place a first part of the stages there"
        )
    choice = policies.choice_of_placements(policy, chain.table, goal.objective, placements)
    return Decision(chain, choice.placements, choice.value)


def _jointdnn(
    chain: PricedStages,
    goal: Goal,
    device: DeviceSource,
    server: DeviceSource,
    ranked: Sequence[RankedPlacement],
) -> Decision:
    unknown = [name for name in goal.limits if name not in _JOINTDNN_LIMITS]
    if unknown:
        raise PlanError(
            f"rule jointdnn has no limit {unknown[0]!r}; its limits: {', '.join(_JOINTDNN_LIMITS)}"
        )
    battery, cloud, qos = (goal.limits.get(name) for name in _JOINTDNN_LIMITS)
    blocks = block_costs(chain.stages, chain.table, device, server)
    try:
        choice = policies.jointdnn(
            chain.table,
            goal.objective,
            blocks=blocks,
            battery_nj=battery,
            cloud_ns=cloud,
            qos_ns=qos,
        )
    except PlanError:
        # If no single cut keeps the limits either, this raises an error that names the limit.
        best_cut([chain.table], [candidate.row for candidate in ranked], goal)
        raise
    return Decision(chain, choice.placements, choice.value)


def _ushakov(chain: PricedStages, goal: Goal) -> Decision:
    missing = [name for name in _USHAKOV_LIMITS.values() if name not in goal.limits]
    if missing:
        raise PlanError(
            f"rule ushakov needs the limits memory, device and bytes; {', '.join(missing)} missing"
        )
    choice, cut = policies.ushakov(
        chain.table,
        goal.objective,
        memory_max=goal.limits["memory"],
        cpu_max=goal.limits["device"],
        sent_max=goal.limits["bytes"],
    )

    text = f"rule ushakov: j={cut.j} k={cut.k} q={cut.q} g={cut.g}"
    if cut.fuzzy:
        text += f", bound of {_USHAKOV_LIMITS[cut.fuzzy]} relaxed"
    refusal = "" if cut.feasible else _ushakov_refusal(cut, goal, text)
    return Decision(chain, choice.placements, choice.value, notes=(text,), refusal=refusal)


def _ushakov_refusal(cut: policies.UshakovCut, goal: Goal, text: str) -> str:
    """Say which limits the cut that the policy chose does not keep."""
    names = [_USHAKOV_LIMITS[name] for name in cut.broken]
    broken = " and ".join(f"{name}={human(name, goal.limits[name])}" for name in names)
    level = f"level {cut.g} breaks" if cut.g else "not even the first level keeps"
    return (
        f"no split is allowed: {text}, and {level} {broken}; loosen a limit, or take rule exact, "
        "which keeps them all"
    )
