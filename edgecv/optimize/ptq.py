"""Post-training quantisation: ranges and bias correction from calibration pictures, no training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from edgecv.backends.common import quiet
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize
from edgecv.errors import EdgecvError, ToolchainError
from edgecv.optimize.adaround import Reconstruction, adaround
from edgecv.optimize.capture import capture
from edgecv.optimize.equalize import equalize
from edgecv.optimize.examples import Example, picture_shape, pictures
from edgecv.optimize.flat import guard_flat_ranges
from edgecv.optimize.fold import spell_batch_norms
from edgecv.optimize.histogram import Range
from edgecv.optimize.level import level_channels
from edgecv.optimize.observers import correct_biases, fit_weight_scales, search_ranges
from edgecv.optimize.pixel_grid import WHY, input_ranges
from edgecv.optimize.quantized import QuantizedGraph, wrap_up
from edgecv.optimize.quantizer import EdgeQuantizer
from edgecv.optimize.range_rule import RangeChoice, choose_ranges
from edgecv.optimize.rules import Plan
from edgecv.optimize.shared_weights import share_weights
from edgecv.optimize.smoothing import unsmooth_int8
from edgecv.optimize.split import Part, split_channels
from edgecv.optimize.switches import Originals, float_biases, float_weights

__all__ = ["Prepared", "prepare_ptq", "quantize_ptq"]


@dataclass(frozen=True)
class _Pictures:
    """Calibration pictures for NNCF, which passes over them more than once."""

    batches: Batches
    limit: int
    shape: tuple[int, ...]

    def __iter__(self) -> Iterator[Example]:
        return pictures(self.batches, limit=self.limit, shape=self.shape)


@dataclass(frozen=True)
class Prepared:
    """A quantised graph before its numbers are snapped to the engines' grids, beside what it was in float."""

    graph: GraphModule
    plan: Plan
    originals: Originals
    learned: tuple[Reconstruction, ...] = ()
    ranges: RangeChoice | None = None

    @property
    def told(self) -> str:
        """How the rule of the ranges was chosen, in words; empty where the recipe names it."""
        return "" if self.ranges is None else self.ranges.why


def quantize_ptq(
    module: torch.nn.Module,
    example: Example,
    *,
    step: Quantize,
    calibration: Batches,
    samples: int = 300,
    pixels: Range | None = None,
    progress: Progress | None = None,
    log: Path | None = None,
) -> QuantizedGraph:
    """Quantise ``module`` to int8 by the targets' rules, with scales from ``samples`` calibration pictures.

    ``example`` is `(1, C, H, W)` float32; of a step form (`edgecv.models.streaming`) a frame and its state, with
    ``calibration`` of `edgecv.optimize.examples.steps_of`. Pictures stream through one at a time. Channels are
    levelled first (`edgecv.optimize.level`): those that only depthwise convolutions read in full, others by
    ``step.level``; what the layers of ``step.split`` read gets several scales (`edgecv.optimize.split`).
    ``step.ranges``: ``auto`` tries the rules and takes the one that keeps the network's outputs best
    (`edgecv.optimize.range_rule`); ``mean-minmax`` takes the mean of the pictures' ranges, which cuts outliers (NNCF's
    choice for convolutional networks); ``minmax`` the widest range seen; ``percentile``, ``mse`` and ``entropy`` search
    on histograms (`edgecv.optimize.histogram`). The input takes ``pixels``, the range of an 8-bit picture
    (`edgecv.optimize.pixel_grid`), where the scheme has zero points.
    With ``step.bias_correction`` the shift that rounded weights cause is taken out of the biases (Nagel
    et al., arXiv:1906.04721); ``step.equalize`` evens out channels first (the same paper);
    ``step.smooth_quant`` moves outliers of activations into the weights first (Xiao et al., arXiv:2211.10438);
    the layers of ``step.adaround`` learn their rounding (Nagel et al., arXiv:2004.10568). ``module`` is not
    changed; the same input gives the same result. What NNCF prints goes to the end of ``log``.

    Raises:
        ModelError: the module cannot be traced, or ``step.split`` names a layer that is not depthwise.
        DataError: there is no calibration picture, or one does not fit ``example``.
        ToolchainError: NNCF refuses the graph.
    """
    report = progress or SilentProgress()
    made = prepare_ptq(
        module, example, step=step, calibration=calibration, samples=samples, pixels=pixels, progress=report, log=log
    )
    with quiet(log):
        return wrap_up(made.graph, plan=made.plan, example=example, calibration=calibration, ranges=made.told)


def prepare_ptq(  # noqa: PLR0913 - a captured graph beside what `quantize_ptq` takes
    module: torch.nn.Module,
    example: Example,
    *,
    step: Quantize,
    calibration: Batches,
    samples: int = 300,
    pixels: Range | None = None,
    captured: GraphModule | None = None,
    progress: Progress | None = None,
    log: Path | None = None,
) -> Prepared:
    """`quantize_ptq` up to the Q/DQ graph with its float weights, which the sensitivity table takes.

    ``captured`` is what `edgecv.optimize.capture.capture` makes of ``module``, for who prepares it more than once; it
    is not changed.

    Raises:
        ModelError: the module cannot be traced, or ``step.split`` names a layer that is not depthwise.
        DataError: there is no calibration picture, or one does not fit ``example``.
        ToolchainError: NNCF refuses the graph.
    """
    report = progress or SilentProgress()
    graph = capture(module, example) if captured is None else copy.deepcopy(captured)
    spell_batch_norms(graph)
    source = _Pictures(calibration, samples, picture_shape(example))
    if step.equalize:
        equalize(graph)
    levelled = level_channels(graph, source, strength=step.level)
    parts = split_channels(graph, source, layers=step.split, symmetric=step.scheme != "affine")
    if step.split:
        report.line(f"quantize: {len({part.whole for part in parts})} layers cut into {len(parts)} parts")
    guard_flat_ranges(graph)
    quantizer = EdgeQuantizer(scheme=step.scheme, keep_float=step.keep_float, sums=step.sums)
    count = sum(1 for _ in source)
    report.line(f"quantize: post-training, {step.scheme}, {count} calibration pictures")
    with quiet(log), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            graph = _run_nncf(graph, quantizer, source, count, step)
        except EdgecvError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ToolchainError(
                f"NNCF cannot quantise {type(module).__name__} ({reason}). "
                "Name the module that it stops at in keep_float, or use method: qat."
            ) from error
        if step.smooth_quant:
            unsmooth_int8(graph, quantizer.plan)
        share_weights(graph, [layer.name for layer, _, _ in quantizer.plan.weights])
        with torch.no_grad():
            fit_weight_scales(graph)
        # Only now: NNCF gives weights that it smooths new names.
        originals = Originals(float_biases(graph), float_weights(graph))
        fixed = input_ranges(graph, quantizer.plan, pixels) if step.scheme == "affine" else {}
        choice = _find_ranges(graph, quantizer.plan, source, count, step, fixed)
        if choice is not None:
            report.line(f"quantize: {choice.why}")
        _tell(quantizer.plan, choice, levelled, parts, fixed)
        learned: tuple[Reconstruction, ...] = ()
        if step.adaround:
            learned = adaround(graph, lambda: iter(source), layers=step.adaround, originals=originals)
        if step.bias_correction:
            correct_biases(graph, source, originals=originals)
    return Prepared(graph, quantizer.plan, originals, learned, choice)


def _find_ranges(
    graph: GraphModule, plan: Plan, source: _Pictures, count: int, step: Quantize, fixed: Mapping[str, Range]
) -> RangeChoice | None:
    """Give all int8 activations their ranges; the choice, where there was one."""
    symmetric, choice = step.scheme != "affine", None
    if step.ranges == "percentile" or step.ranges == "mse" or step.ranges == "entropy":
        search_ranges(graph, plan, source, search=step.ranges, symmetric=symmetric, fixed=fixed)
    elif step.ranges == "auto":
        choice = choose_ranges(graph, plan, source, count=count, symmetric=symmetric, fixed=fixed)
    else:
        rules = (step.ranges,)
        choose_ranges(graph, plan, source, count=count, symmetric=symmetric, rules=rules, fixed=fixed)
    return choice


def _tell(
    plan: Plan, choice: RangeChoice | None, levelled: Iterable[str], parts: Iterable[Part], fixed: Collection[str]
) -> None:
    """Add to the reasons of the plan's tensors how their ranges came about."""
    for part in parts:
        if part.tensor in plan.why:
            plan.why[part.tensor] += f"; {len(part.channels)} channels of {part.whole}, split by size"
    for name in levelled:
        if name in plan.why:
            plan.why[name] += "; channels levelled"
    for name in plan.why:
        if name in fixed:
            plan.why[name] += WHY
        elif choice is not None:
            plan.why[name] += f"; range by {choice.rule}"


def _run_nncf(graph: Any, quantizer: EdgeQuantizer, source: _Pictures, count: int, step: Quantize) -> Any:
    import nncf
    from nncf.experimental.torch.fx import quantize_pt2e
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return quantize_pt2e(
        graph,
        quantizer,
        nncf.Dataset(source),
        # All ranges are set later, from streams: for a mean NNCF keeps every picture's ranges, half a megabyte for a
        # small network. SmoothQuant needs the pictures.
        subset_size=count if step.smooth_quant else 1,
        fast_bias_correction=None,  # ours comes last, when scales and weights are final
        smooth_quant=step.smooth_quant,
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        fold_quantize=False,
    )
