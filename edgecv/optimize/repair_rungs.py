"""The rungs of the repair ladder: which settings are proposed, cheapest first.

A rung is a generator of proposals. It is told after each whether the limit is met, and may propose more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch.fx import GraphModule

from edgecv.core.recipe import Quantize
from edgecv.optimize.examples import Example
from edgecv.optimize.fold import spell_batch_norms
from edgecv.optimize.graph import CONVOLUTIONS, LINEAR, get_constant, shape_of
from edgecv.optimize.ptq import Prepared
from edgecv.optimize.rules import SUMS
from edgecv.optimize.sensitivity import Sensitivity, sensitivity
from edgecv.optimize.split import find_splits

Ranges = Literal["mean-minmax", "minmax", "percentile", "mse", "entropy"]

__all__ = ["RUNGS", "Proposal", "Scene", "rank_for_float"]

OBSERVERS: tuple[Ranges, ...] = ("mse", "percentile", "entropy", "minmax", "mean-minmax")
BETTER_DB = 0.1
LEVELS = (0.5, 1.0)
"""Half way between channels as they are and channels of one size, where weights bear a part of it, and all the way."""
ROUNDED_SHARE = 1 / 3
MOST_ROUNDED = 12
FLOAT_SHARE = 1 / 2
"""A network with more than half of its layers in float is no int8 network; training is the better way then."""
MATERIAL = 0.02
"""Of all layers' noise. One that adds less cannot be what mends the network, however little it costs."""

Proposals = Generator["Proposal", bool, None]


@dataclass(frozen=True)
class Proposal:
    """Fields of the quantize step to change, and the change in words.

    ``smaller`` says that it is cheaper than the proposal before, so that it wins if it meets the limit too.
    """

    what: str
    changes: dict[str, Any]
    smaller: bool = False


@dataclass(frozen=True)
class Scene:
    """What a rung may look at: the network as it is and its dB, calibration pictures, times, and a trial's dB.

    ``captured`` is the float graph as it came from the model; it is not to be changed.
    """

    prepared: Prepared
    sqnr_db: float
    pictures: Callable[[], Iterable[Example]]
    latency_ms: Mapping[str, float]
    trial_sqnr_db: Callable[[Quantize], float]
    captured: GraphModule

    def table(self) -> Sensitivity:
        """The sensitivity of every layer on the calibration pictures, with the layers' times."""
        return sensitivity(self.prepared, self.pictures(), latency_ms=self.latency_ms)


def observers(scene: Scene, step: Quantize) -> Proposals:
    """The other way to find ranges that has the best signal to noise on calibration pictures.

    Ways that the one taken was chosen from are not tried again.
    """
    chosen = scene.prepared.ranges
    taken = step.ranges if chosen is None else chosen.rule
    tried = (step.ranges,) if chosen is None else tuple(chosen.sqnr_db)
    others = {name: scene.trial_sqnr_db(replace(step, ranges=name)) for name in OBSERVERS if name not in tried}
    best = max(others, key=lambda name: others[name])
    if others[best] > scene.sqnr_db + BETTER_DB:
        yield Proposal(f"ranges {best} instead of {taken}", {"ranges": best})


def bias_correction(scene: Scene, step: Quantize) -> Proposals:
    """Take the shift of rounded weights out of the biases, where the recipe has that switched off."""
    if not step.bias_correction:
        yield Proposal("biases corrected", {"bias_correction": True})


def equalisation(scene: Scene, step: Quantize) -> Proposals:
    """Channels evened out between layers, by their weights or by what they hold."""
    if not step.equalize and (yield Proposal("channels of neighbouring layers evened out", {"equalize": True})):
        return
    if step.level == 0:
        found = {level: scene.trial_sqnr_db(replace(step, level=level)) for level in LEVELS}
        best = max(found, key=lambda level: found[level])
        if found[best] > scene.sqnr_db + BETTER_DB:
            yield Proposal(f"channels brought to one size by {best}", {"level": best})


def sum_scales(scene: Scene, step: Quantize) -> Proposals:
    """Scales of their own for what is added, where that is better than the sum's scale for all."""
    adds = any(node.target in SUMS for node in scene.prepared.graph.graph.nodes)
    if step.sums == "shared" and adds and scene.trial_sqnr_db(replace(step, sums="own")) > scene.sqnr_db + BETTER_DB:
        yield Proposal("what is added keeps its own scale", {"sums": "own"})


def smooth_quant(scene: Scene, step: Quantize) -> Proposals:
    """Outliers moved into weights, where linear layers read tokens."""
    nodes = [node for node in scene.prepared.graph.graph.nodes if node.target is LINEAR]
    if not step.smooth_quant and any(len(shape_of(node) or ()) > 2 for node in nodes):
        yield Proposal("outliers of activations moved into weights", {"smooth_quant": True})


def learned_rounding(scene: Scene, step: Quantize) -> Proposals:
    """Learn the rounding of the layers whose weights add most noise."""
    kinds = {item.__name__.split(".")[0] for item in (CONVOLUTIONS[1], LINEAR)}
    table = sensitivity(scene.prepared, scene.pictures(), weights_only=True)
    rows = [row for row in table.rows if row.kind in kinds and math.isfinite(row.sqnr_db)]
    count = min(MOST_ROUNDED, max(1, round(len(rows) * ROUNDED_SHARE)))
    names = tuple(dict.fromkeys(row.layer for row in rows[:count]))
    if names and not step.adaround:
        yield Proposal(f"rounding learned in {_listed(names)}", {"adaround": names})


def own_scales(scene: Scene, step: Quantize) -> Proposals:
    """Split the channels of depthwise layers by their size: twice as many layers until it is enough, then fewer."""
    if step.split:
        return
    graph = copy.deepcopy(scene.captured)
    spell_batch_norms(graph)
    gains = find_splits(graph, scene.pictures(), symmetric=step.scheme != "affine")
    noise: dict[str, float] = {}
    for row in scene.table().rows if gains else ():
        noise[row.layer] = noise.get(row.layer, 0.0) + _noise(row.sqnr_db)
    ranked = sorted((name for name in gains if name in noise), key=lambda name: -gains[name] * noise[name])
    yield from _as_few(
        len(ranked),
        lambda count: Proposal(f"channels split in {_listed(ranked[:count])}", {"split": tuple(ranked[:count])}),
    )


def keep_float(scene: Scene, step: Quantize) -> Proposals:
    """Keep layers float, most noise per millisecond first: twice as many until it is enough, then fewer again."""
    ranked = rank_for_float(scene)

    def proposal(count: int) -> Proposal:
        names = ranked[:count]
        return Proposal(f"float: {_listed(names)}{_cost(scene, names)}", {"keep_float": (*step.keep_float, *names)})

    yield from _as_few(int(len(ranked) * FLOAT_SHARE), proposal)


def _as_few(most: int, proposal: Callable[[int], Proposal]) -> Proposals:
    """Proposals of 1, 2, 4, ... up to ``most``; once the limit is met, of fewer again, to find how few will do."""
    low, high, count = 0, None, 1
    while count <= most:
        met = yield replace(proposal(count), smaller=high is not None)
        if met:
            high = count
        else:
            low = count
        if high is None:
            count = min(2 * count, most) if count < most else most + 1
        elif high - low > 1:
            count = (low + high) // 2
        else:
            break


def rank_for_float(scene: Scene) -> tuple[str, ...]:
    """Names of layers by the noise that they add for each millisecond (or multiplication) of theirs, most first.

    Those that add next to nothing come after all others.
    """
    rows = [row for row in scene.table().rows if row.kind != "activation"]
    known = all(row.latency_ms is not None for row in rows)
    work = {} if known else _multiplications(scene.prepared)
    noise: dict[str, float] = {}
    worth: dict[str, float] = {}
    for row in rows:
        cost = row.latency_ms if known else work.get(row.tensors[1] if len(row.tensors) > 1 else "", 1.0)
        noise[row.layer] = noise.get(row.layer, 0.0) + _noise(row.sqnr_db)
        worth[row.layer] = worth.get(row.layer, 0.0) + _noise(row.sqnr_db) / max(float(cost or 0.0), 1e-9)
    least = MATERIAL * sum(noise.values())
    return tuple(sorted(worth, key=lambda name: (noise[name] < least, -worth[name])))


def _noise(sqnr_db: float) -> float:
    """As a share of the signal's power."""
    return 0.0 if sqnr_db == math.inf else 10 ** (-max(sqnr_db, -300.0) / 10)


def _multiplications(prepared: Prepared) -> dict[str, float]:
    """Multiplications of each layer by its weight's name."""
    found: dict[str, float] = {}
    for node in prepared.graph.graph.nodes:
        if node.target not in (*CONVOLUTIONS, LINEAR):
            continue
        weights: Any = node.args[1]
        while weights.op != "get_attr":
            weights = weights.args[0]
        weight, shape = get_constant(prepared.graph, weights), shape_of(node) or ()
        positions = math.prod(int(size) for size in (shape[2:] if node.target is not LINEAR else shape[1:-1]))
        found[str(weights.target)] = float(weight.numel() * positions)
    return found


def _cost(scene: Scene, names: Iterable[str]) -> str:
    times = [scene.latency_ms[name] for name in names if name in scene.latency_ms]
    return f" ({sum(times):.2f} ms of float layers)" if times else ""


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(shown[:4]) + more


RUNGS: tuple[tuple[str, Callable[[Scene, Quantize], Proposals]], ...] = (
    ("observer", observers),
    ("bias correction", bias_correction),
    ("equalisation", equalisation),
    ("sum scales", sum_scales),
    ("smooth quant", smooth_quant),
    ("learned rounding", learned_rounding),
    ("split channels", own_scales),
    ("float layers", keep_float),
)
"""Cheapest first; quantisation-aware training comes after them."""
