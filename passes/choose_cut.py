"""choose-cut: the cut that is best for a device, a server and a link."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from irsplit import planner, policies
from irsplit.cost import METRICS, UNITS, CostTable, Place
from irsplit.errors import PlanError
from irsplit.ir import Model, TensorType, Value, without_collector
from irsplit.passes import prices
from irsplit.passes.base import Context, channel_layout
from irsplit.passes.blocks import block_costs
from irsplit.passes.cuts import Cut
from irsplit.passes.dims import unsized_note
from irsplit.passes.ratios import Ratios, calls_wanted, candidates, measured_ratios
from irsplit.passes.segment_times import said_of, segment_times
from irsplit.passes.stretches import (
    Macs,
    Stretches,
    Summed,
    chains,
    cost_table,
    estimated,
    estimated_ns,
    halves_of,
    measured,
)
from irsplit.planner import Baseline, Goal, Ranked, best_cut, human, rank_cuts
from irsplit.planner.result import baselines
from irsplit.profiles import NO_MESSAGE, Device, Message, device, link
from irsplit.profiles.measured import BundleProfile, Measured, ModelProfile, is_measured, load_profile
from irsplit.profiles.units import parse
from irsplit.runtime.boundary import codec_names
from irsplit.runtime.replan import DEVICE_ONLY, SERVER_ONLY, cut_costs, worth_having

DEFAULT_DEVICE = "pixel-2"
DEFAULT_SERVER = "tesla-k40"
OBJECTIVES = {"device-memory": "memory"}
"""Names that the command line offers beside the planner's own."""
RULES = ("exact", "neurosurgeon", "dads", "collabdnn", "jointdnn", "ushakov")
PATTERNS = ("single", "several", "any")
SEVERAL = 4
"""Cuts at most to choose from at run time: every segment more costs an engine call and what it could have fused."""
_DIMENSIONS = {"ns": "time", "nJ": "energy", "bytes": "size"}
_Machine = Device | ModelProfile | BundleProfile


@dataclass(frozen=True, slots=True)
class Chain:
    """Cuts that nest, with what the stretches between them cost."""

    parts: Stretches
    table: CostTable


@dataclass(frozen=True, slots=True)
class Option:
    """One way to place the model: the first stretches of a chain on the device, and what that costs."""

    chain: Chain
    row: Ranked

    @property
    def cut(self) -> Cut | None:
        """The cut that it is; None for everything in one place."""
        cuts = self.chain.parts.cuts
        return cuts[self.row.groups - 1] if 0 < self.row.groups <= len(cuts) else None

    @property
    def label(self) -> str:
        """The id of the cut, or what it is instead."""
        if self.cut is not None:
            return self.cut.id
        return DEVICE_ONLY if self.row.groups else SERVER_ONLY


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: cuts in order, a place per segment, and everything that it was compared with, the best first.

    Without cuts the whole model belongs to one place, and no split is allowed. `chain` is the one that the cuts are
    of. `bound` is 0 where a paper's policy proves nothing.
    """

    rule: str
    goal: Goal
    chain: Chain
    ranked: tuple[Option, ...]
    baselines: tuple[Baseline, ...]
    cuts: tuple[Cut, ...]
    places: tuple[str, ...]
    value: int
    bound: int
    notes: tuple[str, ...]
    refusal: str = ""
    """Why no split is allowed, where none is, and what there is instead."""
    ratios: Ratios | None = None
    """What the codecs do to this model's tensors; None where the published ratios stand."""

    def check_split(self) -> None:
        """Raise PlanError with the reason when no split is allowed."""
        if not self.cuts:
            raise PlanError(self.refusal)

    def to_json(self) -> dict[str, Any]:
        """The choice and its reasons, for manifests and reports."""
        return {
            "rule": self.rule,
            "objective": self.goal.objective,
            "unit": self.goal.unit,
            "limits": dict(self.goal.limits),
            "link": self.chain.table.link.name,
            "load": self.chain.table.server_load_percent,
            "measured_ratios": self.ratios.to_json() if self.ratios else None,
            "cuts": [cut.id for cut in self.cuts],
            "places": list(self.places),
            "value": self.value,
            "bound": self.bound,
            "baselines": {b.name: {"value": b.value, "allowed": b.allowed} for b in self.baselines},
            "ranked": [
                {
                    "cut": each.label,
                    "value": each.row.value,
                    "allowed": each.row.allowed,
                    "terms": each.row.costs.terms,
                    "sent": [asdict(switch) for switch in each.row.costs.switches],
                }
                for each in self.ranked
            ],
            "notes": [*self.notes, *([self.refusal] if self.refusal else [])],
        }


@dataclass(frozen=True)
class ChooseCut:
    """Choose among the legal cuts; `device` and `server` are profiles by name or file, or measured profiles (.json).

    `limit` is METRIC=VALUE with a unit, any number of times. `rule` is `exact` or the policy of a paper. With
    `pattern=any` the model may be cut several times and come back to the device; `pattern=several` gives up to four
    cuts, each of them the best for some link, among which the client chooses at run time. `codec` is what will code
    the boundary, a name or auto, in `bits` bits when it will be quantized; without it, raw or whatever was measured.
    """

    name: ClassVar[str] = "choose-cut"
    device: str = DEFAULT_DEVICE
    server: str = ""
    link: str = "wifi"
    objective: str = "latency"
    limit: tuple[str, ...] = ()
    rule: str = "exact"
    pattern: str = "single"
    max_tensors: int = 1
    load: int = 100
    codec: str = ""
    bits: int = 0

    def run(self, model: Model, context: Context) -> bool:
        choice = self.choose(model, context)
        choice.check_split()
        context.chosen_cuts = tuple(cut.id for cut in choice.cuts)
        context.chosen_places = choice.places
        context.details["choice"] = choice.to_json()
        context.ratios = choice.ratios
        for note in choice.notes:
            context.remark(self, note, warning=note.startswith("no split"))
        return False

    @without_collector()
    def choose(self, model: Model, context: Context) -> Choice:
        """Price every legal cut and choose. Raises PlanError for a bad profile or limit, or when nothing fits."""
        goal = self._goal()
        if self.rule not in RULES:
            raise PlanError(f"unknown rule {self.rule!r}; known rules: {', '.join(RULES)}")
        if self.pattern not in PATTERNS:
            raise PlanError(f"unknown pattern {self.pattern!r}; known patterns: {', '.join(PATTERNS)}")
        if self.pattern == "several" and (self.rule, goal.objective) != ("exact", "latency"):
            raise PlanError("pattern several is for rule exact and objective latency, by which clients choose")
        if self.load <= 0:
            raise PlanError(f"server load {self.load} % must be positive; 100 is an idle server")
        ratios = self.ratios(model, context)
        priced = self._priced(model, context, ratios)
        table = priced[0].table
        if "energy" in (goal.objective, *goal.limits) and not table.knows_energy:
            raise PlanError(
                f"device {self.device!r} has no active_power, so energy cannot be planned with it; "
                "take a device profile that has it, or add it to a .toml of your own"
            )
        ranked = _options(priced, goal)
        if self.pattern == "several":
            choice = _several(priced, goal, ranked)
        else:
            decision = self._decide(priced, goal, ranked)
            choice = _choice(self.rule, goal, ranked, decision, self._unknown(goal, model, priced[0].table))
        notes = [said_of(priced[0].parts, side) for side in self._machines() if isinstance(side, BundleProfile)]
        notes += [] if ratios is None else [_said_of(ratios)]
        return replace(choice, ratios=ratios, notes=(*choice.notes, *notes))

    def _unknown(self, goal: Goal, model: Model, table: CostTable) -> list[str]:
        """What the plan does not know."""
        notes: list[str] = []
        if "energy" in (goal.objective, *goal.limits) and not table.link.up_uw:
            notes.append(f"link {table.link.name} has no radio power: the energy is that of computing alone")
        if shapeless := [value.name for value in model.entry.outputs if _is_shapeless(value)]:
            notes.append(f"how large {', '.join(shapeless)} are is not known: their way back counts as nothing")
        if (left := unsized_note(model.entry)) and not isinstance(self._machines()[0], ModelProfile):
            notes.append(left)
        return notes

    def _priced(self, model: Model, context: Context, ratios: Ratios | None = None) -> list[Chain]:
        found = chains(context.cuts(model, self.max_tensors))
        known = context.macs, ratios, context.summed
        return [Chain(parts, self.table(model.entry.name, parts, *known)) for parts in found]

    def _goal(self) -> Goal:
        return Goal(OBJECTIVES.get(self.objective, self.objective), parse_limits(self.limit))

    def ratios(self, model: Model, context: Context) -> Ratios | None:
        """What the codec makes of the tensors of the cuts that are best by published ratios, on calibration inputs.

        None without those, or without a codec.
        """
        if context.observe is None or not self.codec:
            return None
        priced = self._priced(model, context)
        inputs = priced[0].parts.plan.inputs
        options = _options(priced, self._goal())
        values = candidates((option.cut for option in options if option.cut is not None), inputs)
        samples = context.observe(model, values, calls_wanted(values))
        published = {name: ways for chain in priced for name, ways in self.codings(chain.parts).items()}
        return measured_ratios(values, inputs, published, samples, self.bits, channel_layout(model))

    def table(
        self,
        name: str,
        parts: Stretches,
        macs: Macs | None,
        ratios: Ratios | None = None,
        summed: Summed | None = None,
    ) -> CostTable:
        """The model's cost table for these profiles, with `ratios` where they were measured."""
        here, there = self._machines()
        return cost_table(
            name,
            parts,
            *_times(parts, here, there, macs, summed),
            link(self.link),
            device=here if isinstance(here, Device) else None,
            codings=self._codings(parts, here, there, ratios),
            previews=here.previews if isinstance(here, Measured) else None,
            peaks=halves_of(parts, here, before=True) if isinstance(here, ModelProfile) else (),
            message=_message(here, there),
        ).with_load(self.load)

    def codings(self, parts: Stretches, ratios: Ratios | None = None) -> prices.Codings:
        """The ways to send every boundary tensor and input; without `codec` those that were measured.

        Raises PlanError for a codec that nobody knows.
        """
        return self._codings(parts, *self._machines(), ratios)

    def _codings(self, parts: Stretches, here: _Machine, there: _Machine, ratios: Ratios | None) -> prices.Codings:
        known = (*codec_names(), "auto")
        if self.codec and self.codec not in known:
            raise PlanError(f"unknown codec {self.codec!r}; known codecs: {', '.join(known)}")
        codings = here.tensors if isinstance(here, ModelProfile) else {}
        if isinstance(here, ModelProfile) and isinstance(there, Measured):
            codings = _meet(here, there)
        if not self.codec:
            return codings
        encoding, decoding = (
            place.codecs if isinstance(place, Device) else place.speeds(self.bits) for place in (here, there)
        )
        found = prices.codings(parts, self.codec, self.bits, encoding, decoding, codings)
        return found if ratios is None or ratios.bits != self.bits else ratios.applied(parts, found)

    def _machines(self) -> tuple[_Machine, _Machine]:
        return _machine(self.device), _machine(self.server or default_server(self.device))

    def _decide(self, priced: Sequence[Chain], goal: Goal, ranked: Sequence[Option]) -> "_Decision":
        """Papers' rules know of one order of the model only, the graph's own."""
        if self.rule == "exact" and self.pattern == "any":
            return _any_pattern(priced, goal)
        if self.rule == "exact":
            row = best_cut([chain.table for chain in priced], [option.row for option in ranked], goal)
            chain = ranked[0].chain
            return _Decision(chain, _prefix(len(chain.table.groups), row.groups), row.value, row.value)
        chain = priced[0]
        if self.rule == "ushakov":
            return _ushakov(chain, goal)
        if self.rule == "jointdnn":
            return _jointdnn(chain, goal, *self._machines(), ranked)
        if goal.limits:
            raise PlanError(f"rule {self.rule} has no limits; leave them out, or use rule exact")
        policy = {"neurosurgeon": policies.neurosurgeon, "dads": policies.dads, "collabdnn": policies.collabdnn}
        found = policy[self.rule](chain.table, goal.objective)
        return _Decision(chain, found.places, found.value)


@dataclass(frozen=True, slots=True)
class _Decision:
    """Place of every stretch of a chain, its value, the proved bound, and what to say about it."""

    chain: Chain
    places: tuple[Place, ...]
    value: int
    bound: int = 0
    notes: tuple[str, ...] = ()
    refusal: str = ""
    """Why the rule itself does not allow what it chose."""


def _options(priced: Sequence[Chain], goal: Goal) -> tuple[Option, ...]:
    """Every cut and the two ways without one, the best first; what several chains have is told once."""
    found: dict[str, Option] = {}
    for chain in priced:
        for row in rank_cuts(chain.table, goal):
            option = Option(chain, row)
            found.setdefault(option.label, option)
    return tuple(sorted(found.values(), key=lambda option: (not option.row.allowed, option.row.value)))


def _any_pattern(priced: Sequence[Chain], goal: Goal) -> _Decision:
    """The best plan of as many cuts as pay. Raises PlanError when none of the chains has one within the limits."""
    found: list[_Decision] = []
    problems: list[PlanError] = []
    for chain in priced:
        try:
            best = planner.plan(chain.table, goal.objective, limits=goal.limits, monotone=False)
        except PlanError as problem:
            problems.append(problem)
        else:
            found.append(_Decision(chain, best.places, best.value, best.bound))
    if not found:
        raise problems[0]
    return min(found, key=lambda decision: decision.value)


def parse_limits(words: Sequence[str]) -> dict[str, int]:
    """`memory=64MB`, `latency=20ms` in the units of the cost table. Raises PlanError."""
    limits: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        name = OBJECTIVES.get(name, name)
        if name not in METRICS:
            raise PlanError(f"unknown limit {word!r}; limits can be set on {', '.join(METRICS)}, as in memory=64MB")
        try:
            limits[name] = parse(value, _DIMENSIONS[UNITS.get(name, "ns")])
        except ValueError as error:
            raise PlanError(f"limit {word!r}: {error}") from error
        if limits[name] < 0:
            raise PlanError(f"limit {word!r} is negative")
    return limits


def _is_shapeless(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.estimated_shape is None


def _machine(text: str) -> _Machine:
    return load_profile(text) if is_measured(text) else device(text)


def _message(here: _Machine, there: _Machine) -> Message:
    """The device's part as it was measured there, the exchange by the side that measured one, the server's first."""
    sides = [side.message for side in (there, here) if isinstance(side, Measured)]
    exchange = next((message for message in sides if message.exchange_ns), NO_MESSAGE)
    return replace(exchange, device_ns=here.message.device_ns if isinstance(here, Measured) else 0)


def default_server(device: str) -> str:
    """The server beside a device: its own machine, without a slowdown, when the whole model was measured there."""
    whole = is_measured(device) and isinstance(load_profile(device), ModelProfile)
    return _unslowed(device) if whole else DEFAULT_SERVER


def _unslowed(text: str) -> str:
    """A measured profile without its slowdown."""
    return ",".join(word for word in text.split(",") if not word.startswith("slowdown="))


def _times(
    parts: Stretches,
    here: _Machine,
    there: _Machine,
    macs: Macs | None,
    summed: Summed | None,
) -> tuple[list[int], list[int]]:
    """Times of the stretches on both sides."""
    guesses = iter(estimated(parts, macs, [side for side in (here, there) if isinstance(side, Device)], summed))
    typical = device(DEFAULT_DEVICE)

    def times(side: _Machine, *, before: bool) -> list[int]:
        if isinstance(side, Device):
            return next(guesses)
        if isinstance(side, ModelProfile):
            return measured(parts, side, before=before)
        return segment_times(parts, side, lambda node: estimated_ns([node], macs, [typical], summed)[0])

    return times(here, before=True), times(there, before=False)


def _meet(here: ModelProfile, there: Measured) -> dict[str, Any]:
    """Codings as the device encodes and the server decodes them."""
    from_server = {(name, c.codec): c for name, found in there.tensors.items() for c in found if not c.bits}
    return {
        name: tuple(
            type(c)(c.codec, c.size_bytes, c.encode_ns, from_server.get((name, c.codec), c).decode_ns) for c in found
        )
        for name, found in here.tensors.items()
    }


def _prefix(count: int, groups: int) -> tuple[Place, ...]:
    return (Place.DEVICE,) * groups + (Place.SERVER,) * (count - groups)


def _jointdnn(chain: Chain, goal: Goal, here: _Machine, there: _Machine, ranked: Sequence[Option]) -> _Decision:
    known = ("energy", "server", "latency")
    unknown = [name for name in goal.limits if name not in known]
    if unknown:
        raise PlanError(f"rule jointdnn has no limit {unknown[0]!r}; its limits: {', '.join(known)}")
    battery, cloud, qos = (goal.limits.get(name) for name in known)
    blocks = block_costs(chain.parts, chain.table, here, there)
    try:
        found = policies.jointdnn(
            chain.table, goal.objective, blocks=blocks, battery_nj=battery, cloud_ns=cloud, qos_ns=qos
        )
    except PlanError:
        best_cut([chain.table], [option.row for option in ranked], goal)  # says which limit binds
        raise
    return _Decision(chain, found.places, found.value)


_LIMITS_OF_USHAKOV = {"memory": "memory", "cpu": "device", "link": "bytes"}
"""The limits that are the maxima of his rule, by the names that the rule has for them."""


def _ushakov(chain: Chain, goal: Goal) -> _Decision:
    missing = [name for name in _LIMITS_OF_USHAKOV.values() if name not in goal.limits]
    if missing:
        raise PlanError(f"rule ushakov needs the limits memory, device and bytes; {', '.join(missing)} missing")
    found, rule = policies.ushakov(
        chain.table,
        goal.objective,
        memory_max=goal.limits["memory"],
        cpu_max=goal.limits["device"],
        sent_max=goal.limits["bytes"],
    )
    text = f"rule ushakov: j={rule.j} k={rule.k} q={rule.q} g={rule.g}"
    text += f", bound of {_LIMITS_OF_USHAKOV[rule.fuzzy]} relaxed" if rule.fuzzy else ""
    return _Decision(chain, found.places, found.value, notes=(text,), refusal=_refusal_of(rule, goal, text))


def _refusal_of(rule: policies.UshakovCut, goal: Goal, text: str) -> str:
    """What is wrong with what the rule chose; nothing where it keeps the limits."""
    if rule.feasible:
        return ""
    names = [_LIMITS_OF_USHAKOV[name] for name in rule.broken]
    broken = " and ".join(f"{name}={human(name, goal.limits[name])}" for name in names)
    level = f"level {rule.g} breaks" if rule.g else "not even the first level keeps"
    return (
        f"no split is allowed: {text}, and {level} {broken}; loosen a limit, or take rule exact, which keeps them all"
    )


def _choice(rule: str, goal: Goal, ranked: tuple[Option, ...], decision: _Decision, warnings: Sequence[str]) -> Choice:
    """Cuts where the place changes; when it never does, the best allowed split, if there is one."""
    chain, places, value, bound = decision.chain, decision.places, decision.value, decision.bound
    notes = (*warnings, *decision.notes)
    changes = [index for index in range(1, len(places)) if places[index - 1] != places[index]]
    compared = baselines(chain.table, goal)
    if decision.refusal:
        return Choice(rule, goal, chain, ranked, compared, (), (), value, bound, notes, decision.refusal)
    if not changes:
        only = f"everything on the {places[0]} is best: {goal.objective} {human(goal.objective, value)}"
        split = next((option for option in ranked if option.row.allowed and option.cut is not None), None)
        if split is None:
            why = f"no cut keeps {goal.limits_text()}; loosen a limit" if goal.limits else "no cut can be made"
            said = f"no split is allowed: {why}; {only}"
            return Choice(rule, goal, chain, ranked, compared, (), (), value, bound, notes, said)
        notes = (*notes, f"no split pays: {only}")
        chain, changes = split.chain, [split.row.groups]
        places = _prefix(len(chain.table.groups), split.row.groups)
        value, bound = split.row.value, split.row.value if bound else 0
    cuts = tuple(chain.parts.cuts[index - 1] for index in changes)
    segments = tuple(str(places[index]) for index in (0, *changes))
    said = _said(goal, chain, cuts, value, compared)
    return Choice(rule, goal, chain, ranked, compared, cuts, segments, value, bound, (*notes, said))


def _several(priced: Sequence[Chain], goal: Goal, ranked: tuple[Option, ...]) -> Choice:
    """Cuts for a client to choose from, each the best for some link: those of the chain that the best option is of."""
    best_cut([chain.table for chain in priced], [option.row for option in ranked], goal)
    chain = ranked[0].chain
    kept = {cut.id for cut in chain.parts.cuts} | {DEVICE_ONLY, SERVER_ONLY}
    allowed = {option.label: option for option in ranked if option.row.allowed and option.label in kept}
    rows = [{"cut": name, "terms": option.row.costs.terms} for name, option in allowed.items()]
    chosen = [allowed[cost.cut] for cost in worth_having(cut_costs({"choice": {"ranked": rows}}), SEVERAL)]
    compared = baselines(chain.table, goal)
    if not chosen:
        why = f"no split is allowed: no cut keeps {goal.limits_text()}; loosen a limit; only one side alone keeps it"
        return Choice("exact", goal, chain, ranked, compared, (), (), ranked[0].row.value, 0, (), why)
    cuts = tuple(cut for cut in chain.parts.cuts if cut.id in {option.label for option in chosen})
    places = (str(Place.DEVICE), *(str(Place.SERVER) for _ in cuts))
    value = min(option.row.value for option in chosen)
    said = _said(goal, chain, cuts, value, compared)
    return Choice("exact", goal, chain, ranked, compared, cuts, places, value, value, (said,))


def _said_of(ratios: Ratios) -> str:
    width = f", floats in {ratios.bits} bits" if ratios.bits else ""
    return f"sizes of {ratios.tensors} tensors are measured on {ratios.calls} calibration inputs{width}"


def _said(goal: Goal, chain: Chain, cuts: Sequence[Cut], value: int, compared: Sequence[Baseline]) -> str:
    where = ", ".join(f"{cut.id} (after {cut.after_name})" for cut in cuts)
    said = [f"cut {where}: {goal.objective} {human(goal.objective, value)} over {chain.table.link.name}"]
    said += [f"{b.name}: {human(goal.objective, b.value)}" for b in compared]
    return "; ".join(said)
