"""Quantisation-aware training: the graph trains with its rounding in place.

Batch norms are folded into the layers before training. Fake quantisers then sit on a plain graph:
nothing has to be matched and rewritten (torchao spends half a minute on that where there are batch
norms), and what trains is exactly what is deployed. Fine-tuning from trained weights does not need
the statistics to move.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgecv.backends.common import quiet
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize
from edgecv.errors import EdgecvError, ToolchainError
from edgecv.optimize.capture import capture
from edgecv.optimize.flat import guard_flat_ranges
from edgecv.optimize.fold import spell_batch_norms
from edgecv.optimize.pt2e import (
    convert_pt2e,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    prepare_qat_pt2e,
)
from edgecv.optimize.quantized import QuantizedGraph, pictures, wrap_up
from edgecv.optimize.quantizer import EdgeQuantizer
from edgecv.optimize.training import FitResult, Hooks

__all__ = ["Fit", "quantize_qat"]

Fit = Callable[[nn.Module, Hooks], FitResult]
"""Trains a module with the given hooks: `edgecv.optimize.training.fit` with all but these two filled in."""

OBSERVED_SHARE = 2 / 3


def quantize_qat(
    module: nn.Module,
    example: Tensor,
    *,
    step: Quantize,
    calibration: Batches,
    fit: Fit,
    samples: int = 300,
    progress: Progress | None = None,
    log: Path | None = None,
) -> tuple[QuantizedGraph, FitResult]:
    """Quantise ``module`` to int8 by the targets' rules and train it with the rounding in place.

    ``example`` is `(1, C, H, W)` float32. The first ranges come from ``samples`` calibration pictures;
    they follow the data during the first two thirds of ``step.epochs`` and are frozen for the rest, so
    that the weights settle on the scales that are deployed. ``fit`` gets the graph (any batch size)
    and hooks, and runs ``step.epochs`` epochs. ``module`` is not changed. Same seed, same result.
    Straight-through estimator: Bengio et al., arXiv:1308.3432; scheme: Jacob et al., arXiv:1712.05877.

    Raises:
        ModelError: the module cannot be traced with an open batch axis, or the loss is not finite.
        DataError: there is no calibration picture, or one does not fit ``example``.
        ToolchainError: torchao refuses the graph.
    """
    report = progress or SilentProgress()
    quantizer = EdgeQuantizer(scheme=step.scheme, keep_float=step.keep_float, training=True)
    graph = capture(module, torch.cat([example, example]), dynamic_batch=True)
    spell_batch_norms(graph)
    guard_flat_ranges(graph)
    with quiet(log):
        prepared = _prepared(graph, quantizer, name=type(module).__name__)
    report.line(f"quantize: training, {step.scheme}, {step.epochs} epochs")
    _first_ranges(prepared, calibration, samples=samples, shape=tuple(example.shape[1:]))
    frozen_from = max(1, round(step.epochs * OBSERVED_SHARE))

    def on_epoch_start(trained: nn.Module, epoch: int) -> None:
        trained.apply(enable_observer if epoch < frozen_from else disable_observer)

    def set_mode(trained: nn.Module, training: bool) -> None:
        # The graph has neither dropout nor batch norm: only the observers know the difference.
        if not training:
            trained.apply(disable_observer)

    result = fit(prepared, Hooks(set_mode=set_mode, on_epoch_start=on_epoch_start))
    prepared.cpu()
    with quiet(log), torch.no_grad():
        try:
            converted = convert_pt2e(prepared, fold_quantize=False)
        except Exception as error:
            raise ToolchainError(f"torchao cannot convert the trained graph ({error})") from error
        return wrap_up(converted, plan=quantizer.plan, example=example, calibration=calibration), result


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


def _first_ranges(prepared: GraphModule, calibration: Batches, *, samples: int, shape: tuple[int, ...]) -> None:
    """Observe float values of the calibration pictures before any rounding."""
    prepared.apply(enable_observer)
    prepared.apply(disable_fake_quant)
    with torch.no_grad():
        for picture in pictures(calibration, limit=samples, shape=shape):
            prepared(picture)
    prepared.apply(enable_fake_quant)
