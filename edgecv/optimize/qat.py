"""Quantisation-aware training: the graph trains with its rounding in place.

Batch norms are folded into the layers before fake quantisers are put in: nothing has to be matched and rewritten
(torchao spends half a minute on that where there are batch norms), and what trains is what is deployed. Where
their statistics shall move at first, they come back beside the layers (`edgecv.optimize.live_norm`).

Of a network that streams the graph is the step form, whose int8 state has one scale where it goes in and where it comes
out. It trains on whole clips: frame after frame goes through it with the rounded state of the frame before, and the
gradient of the last answer goes back through all of them (backpropagation through time: P. J. Werbos, Proceedings of
the IEEE 78, 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from edgecv.backends.common import quiet
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize
from edgecv.errors import EdgecvError, ToolchainError
from edgecv.models.streaming import StepForm, Unrolled
from edgecv.optimize.capture import capture
from edgecv.optimize.clip_ranges import begin_clips
from edgecv.optimize.constants import fix_batch, fold_constants
from edgecv.optimize.distill import as_distill
from edgecv.optimize.examples import Example, all_inputs, picture_shape, pictures
from edgecv.optimize.features import mark_features, unmark_features
from edgecv.optimize.flat import guard_flat_ranges
from edgecv.optimize.fold import FOLDED, FoldedNorm, spell_batch_norms
from edgecv.optimize.live_norm import fold_live_norms, restore_norms, set_live
from edgecv.optimize.lsq import learn_steps
from edgecv.optimize.pt2e import (
    convert_pt2e,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    prepare_qat_pt2e,
)
from edgecv.optimize.quantized import QuantizedGraph, wrap_up
from edgecv.optimize.quantizer import EdgeQuantizer
from edgecv.optimize.split import Part, split_channels
from edgecv.optimize.training import FitResult, Hooks
from edgecv.optimize.zeros import hold_zeros

__all__ = ["Fit", "quantize_qat"]

Fit = Callable[[nn.Module, Hooks], FitResult]
"""Trains a module with the given hooks: `edgecv.optimize.training.fit` with all but these two filled in."""


def quantize_qat(
    module: nn.Module,
    example: Example,
    *,
    step: Quantize,
    calibration: Batches,
    fit: Fit,
    samples: int = 300,
    progress: Progress | None = None,
    log: Path | None = None,
) -> tuple[QuantizedGraph, FitResult]:
    """Quantise ``module`` to int8 by the targets' rules and train it with the rounding in place.

    ``example`` is `(1, C, H, W)` float32; of a step form (`edgecv.models.streaming`) a frame and its state, with
    ``calibration`` of `edgecv.optimize.examples.steps_of`. The first ranges come from ``samples`` calibration
    pictures. Observed step sizes follow the data during the first ``step.freeze_ranges`` of the epochs and are frozen
    for the rest, so that the weights settle on the scales that are deployed; learned ones (`edgecv.optimize.lsq`) train
    to the end. Batch norms follow the batches during the first ``step.freeze_norms`` of the epochs. ``fit`` gets the
    graph (any batch size; of a step form it takes whole clips) and hooks, and runs ``step.epochs`` epochs. Zeros of
    sparse weights stay. What the layers of ``step.split`` read gets several scales (`edgecv.optimize.split`).
    ``module`` is not changed. Same seed, same result.
    Straight-through estimator: Bengio et al., arXiv:1308.3432; scheme: Jacob et al., arXiv:1712.05877.

    Raises:
        ModelError: the module cannot be traced with an open batch axis, the loss is not finite, or ``step.split`` names
            a layer that is not depthwise.
        DataError: there is no calibration picture, or one does not fit ``example``.
        ToolchainError: torchao refuses the graph.
    """
    report = progress or SilentProgress()
    frames = module.frames if isinstance(module, StepForm) else 1
    quantizer = EdgeQuantizer(
        scheme=step.scheme, keep_float=step.keep_float, sums=step.sums, training=True, clips=frames > 1
    )
    graph = capture(module, tuple(torch.cat([item, item]) for item in all_inputs(example)), dynamic_batch=True)
    folded = graph.meta.pop(FOLDED, {})
    spell_batch_norms(graph)
    shape = picture_shape(example)
    seen = pictures(calibration, limit=samples, shape=shape)
    parts = split_channels(graph, seen, layers=step.split, symmetric=step.scheme != "affine")
    if step.split:
        report.line(f"quantize: {len({part.whole for part in parts})} layers cut into {len(parts)} parts")
    guard_flat_ranges(graph)
    hold_zeros(graph)
    with quiet(log):
        prepared = _prepared(graph, quantizer, name=type(module).__name__)
    report.line(f"quantize: training, {step.scheme}, {step.step_sizes} step sizes, {step.epochs} epochs")
    _first_ranges(prepared, pictures(calibration, limit=samples, shape=shape), frames=frames)
    hooks = _prepare_training(prepared, step, {**folded, **_norms_of(parts, folded)}, frames)
    result = fit(_over_clips(prepared, example) if isinstance(module, StepForm) else prepared, hooks)
    prepared.cpu()
    unmark_features(prepared)
    fold_live_norms(prepared)
    with quiet(log), torch.no_grad():
        try:
            converted = convert_pt2e(prepared, fold_quantize=False)
        except Exception as error:
            raise ToolchainError(f"torchao cannot convert the trained graph ({error})") from error
        fix_batch(converted, example)
        fold_constants(converted)
        return wrap_up(converted, plan=quantizer.plan, example=example, calibration=calibration), result


def _norms_of(parts: Iterable[Part], folded: dict[str, FoldedNorm]) -> dict[str, FoldedNorm]:
    """What the norms of split layers knew of the channels of each part."""
    found = {}
    for part in parts:
        norm, channels = folded.get(part.whole), part.channels
        if norm is not None:
            mean, variance, epsilon = norm.mean[channels], norm.variance[channels], norm.epsilon[channels]
            found[part.node] = FoldedNorm(mean, variance, epsilon, norm.momentum)
    return found


def _prepare_training(prepared: GraphModule, step: Quantize, folded: dict[str, FoldedNorm], frames: int) -> Hooks:
    """Bring in what the step asks for beside fake quantisers; gives the hooks that keep its schedule. The graph runs
    once for each of the ``frames`` in a training step."""
    if step.step_sizes == "learned":
        learn_steps(prepared)
    features = as_distill(step.distill).features
    if features:
        mark_features(prepared, features)
    live_epochs = round(step.epochs * step.freeze_norms)
    if live_epochs:
        restore_norms(prepared, folded, frames=frames)
    frozen_from = max(1, live_epochs, round(step.epochs * step.freeze_ranges))

    def on_epoch_start(trained: nn.Module, epoch: int) -> None:
        trained.apply(enable_observer if epoch < frozen_from else disable_observer)
        set_live(trained, epoch < live_epochs)

    def set_mode(trained: nn.Module, training: bool) -> None:
        # The graph has no dropout: only observers and batch norms know the difference.
        if not training:
            trained.apply(disable_observer)
            set_live(trained, False)

    return Hooks(set_mode=set_mode, on_epoch_start=on_epoch_start)


def _prepared(graph: GraphModule, quantizer: EdgeQuantizer, *, name: str) -> GraphModule:
    try:
        return prepare_qat_pt2e(graph, quantizer)
    except EdgecvError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ToolchainError(
            f"torchao cannot prepare {name} for training ({reason}). "
            "Name the module that it stops at in keep_float, or use method: ptq."
        ) from error


def _first_ranges(prepared: GraphModule, seen: Iterable[Example], *, frames: int) -> None:
    """Observe float values of the calibration pictures before any rounding, so many ``frames`` to a clip.

    These ranges are as wide as the values. From those of post-training quantisation, which cut, training with learned
    steps ends lower: what is cut has no gradient (IMDN on Set5, two epochs: 36.5 dB instead of 37.0).
    """
    prepared.apply(enable_observer)
    prepared.apply(disable_fake_quant)
    with torch.no_grad():
        for number, picture in enumerate(seen):
            if number % frames == 0:
                begin_clips(prepared)
            prepared(*all_inputs(picture))
    prepared.apply(enable_fake_quant)


def _over_clips(prepared: GraphModule, example: Example) -> nn.Module:
    """A prepared step form as a network that takes whole clips, and observes them as such."""
    whole = Unrolled(prepared, all_inputs(example), together=True)
    whole.register_forward_pre_hook(lambda *_: begin_clips(prepared))
    return whole
