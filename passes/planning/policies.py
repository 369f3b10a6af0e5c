"""The rules by which a cut is chosen: the exact planner, and the policies of the papers with their own limits."""

from collections.abc import Sequence

from irsplit import planner
from irsplit.base.errors import PlanError
from irsplit.passes.planning.blocks import block_costs
from irsplit.passes.planning.choice import Decision, Option, PricedStages, prefix
from irsplit.passes.planning.devices import DeviceSource
from irsplit.planner import Goal, best_cut, human, policies

RULES = ("exact", "neurosurgeon", "dads", "collabdnn", "jointdnn", "ushakov")


def exact(priced: Sequence[PricedStages], goal: Goal, ranked: Sequence[Option]) -> Decision:
    """The best single cut of all chains. Raises PlanError when nothing keeps the limits."""
    row = best_cut([chain.table for chain in priced], [option.row for option in ranked], goal)
    chain = ranked[0].chain
    return Decision(chain, prefix(len(chain.table.groups), row.groups), row.value, row.value)


def any_pattern(priced: Sequence[PricedStages], goal: Goal) -> Decision:
    """The best plan of as many cuts as pay. Raises PlanError when none of the chains has one within the limits."""
    found: list[Decision] = []
    problems: list[PlanError] = []
    for chain in priced:
        try:
            best = planner.plan(chain.table, goal.objective, limits=goal.limits, monotone=False)
        except PlanError as problem:
            problems.append(problem)
        else:
            found.append(Decision(chain, best.places, best.value, best.bound))
    if not found:
        raise problems[0]
    return min(found, key=lambda decision: decision.value)


def of_paper(
    rule: str,
    chain: PricedStages,
    goal: Goal,
    machines: tuple[DeviceSource, DeviceSource],
    ranked: Sequence[Option],
) -> Decision:
    """By a paper's policy, which knows of one order of the model only. Raises PlanError for limits that it has not."""
    if rule == "ushakov":
        return _ushakov(chain, goal)
    if rule == "jointdnn":
        return _jointdnn(chain, goal, *machines, ranked)
    if goal.limits:
        raise PlanError(f"rule {rule} has no limits; leave them out, or use rule exact")
    policy = {
        "neurosurgeon": policies.neurosurgeon,
        "dads": policies.dads,
        "collabdnn": policies.collabdnn,
    }
    found = policy[rule](chain.table, goal.objective)
    return Decision(chain, found.places, found.value)


def _jointdnn(
    chain: PricedStages,
    goal: Goal,
    here: DeviceSource,
    there: DeviceSource,
    ranked: Sequence[Option],
) -> Decision:
    known = ("energy", "server", "latency")
    unknown = [name for name in goal.limits if name not in known]
    if unknown:
        raise PlanError(
            f"rule jointdnn has no limit {unknown[0]!r}; its limits: {', '.join(known)}"
        )
    battery, cloud, qos = (goal.limits.get(name) for name in known)
    blocks = block_costs(chain.parts, chain.table, here, there)
    try:
        found = policies.jointdnn(
            chain.table,
            goal.objective,
            blocks=blocks,
            battery_nj=battery,
            cloud_ns=cloud,
            qos_ns=qos,
        )
    except PlanError:
        best_cut([chain.table], [option.row for option in ranked], goal)  # says which limit binds
        raise
    return Decision(chain, found.places, found.value)


_LIMITS_OF_USHAKOV = {"memory": "memory", "cpu": "device", "link": "bytes"}
"""The limits that are the maxima of his rule, by the names that the rule has for them."""


def _ushakov(chain: PricedStages, goal: Goal) -> Decision:
    missing = [name for name in _LIMITS_OF_USHAKOV.values() if name not in goal.limits]
    if missing:
        raise PlanError(
            f"rule ushakov needs the limits memory, device and bytes; {', '.join(missing)} missing"
        )
    found, rule = policies.ushakov(
        chain.table,
        goal.objective,
        memory_max=goal.limits["memory"],
        cpu_max=goal.limits["device"],
        sent_max=goal.limits["bytes"],
    )
    text = f"rule ushakov: j={rule.j} k={rule.k} q={rule.q} g={rule.g}"
    text += f", bound of {_LIMITS_OF_USHAKOV[rule.fuzzy]} relaxed" if rule.fuzzy else ""
    return Decision(
        chain, found.places, found.value, notes=(text,), refusal=_refusal_of(rule, goal, text)
    )


def _refusal_of(rule: policies.UshakovCut, goal: Goal, text: str) -> str:
    """What is wrong with what the rule chose; nothing where it keeps the limits."""
    if rule.feasible:
        return ""
    names = [_LIMITS_OF_USHAKOV[name] for name in rule.broken]
    broken = " and ".join(f"{name}={human(name, goal.limits[name])}" for name in names)
    level = f"level {rule.g} breaks" if rule.g else "not even the first level keeps"
    return f"no split is allowed: {text}, and {level} {broken}; loosen a limit, or take rule exact, which keeps them all"
