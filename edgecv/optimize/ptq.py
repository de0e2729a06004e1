"""Post-training quantisation: ranges and bias correction from calibration pictures, no training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgecv.backends.common import quiet
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Batches
from edgecv.core.recipe import Quantize
from edgecv.errors import EdgecvError, ToolchainError
from edgecv.optimize.capture import capture
from edgecv.optimize.fold import spell_batch_norms
from edgecv.optimize.quantized import QuantizedGraph, pictures, wrap_up
from edgecv.optimize.quantizer import EdgeQuantizer

__all__ = ["quantize_ptq"]


@dataclass(frozen=True)
class _Pictures:
    """Calibration pictures for NNCF, which passes over them more than once."""

    batches: Batches
    limit: int
    shape: tuple[int, ...]

    def __iter__(self) -> Iterator[Tensor]:
        return pictures(self.batches, limit=self.limit, shape=self.shape)


def quantize_ptq(
    module: torch.nn.Module,
    example: Tensor,
    *,
    step: Quantize,
    calibration: Batches,
    samples: int = 300,
    progress: Progress | None = None,
    log: Path | None = None,
) -> QuantizedGraph:
    """Quantise ``module`` to int8 by the targets' rules, with scales from ``samples`` calibration pictures.

    ``example`` is `(1, C, H, W)` float32. Pictures stream through one at a time. ``step.ranges``:
    ``mean-minmax`` takes the mean of the pictures' ranges, which cuts outliers (NNCF's choice for
    convolutional networks); ``minmax`` the widest range seen.
    With ``step.bias_correction`` the shift that rounded weights cause is taken out of the biases (Nagel
    et al., arXiv:1906.04721, as NNCF does it); ``step.smooth_quant`` moves outliers of activations
    into the weights first (Xiao et al., arXiv:2211.10438). ``module`` is not changed; the same input
    gives the same result. What NNCF prints goes to the end of ``log``.

    Raises:
        ModelError: the module cannot be traced.
        DataError: there is no calibration picture, or one does not fit ``example``.
        ToolchainError: NNCF refuses the graph.
    """
    report = progress or SilentProgress()
    graph = capture(module, example)
    spell_batch_norms(graph)
    quantizer = EdgeQuantizer(scheme=step.scheme, keep_float=step.keep_float)
    source = _Pictures(calibration, samples, tuple(example.shape[1:]))
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
        return wrap_up(graph, plan=quantizer.plan, example=example, calibration=calibration)


def _run_nncf(graph: Any, quantizer: EdgeQuantizer, source: _Pictures, count: int, step: Quantize) -> Any:
    import nncf
    from nncf.experimental.torch.fx import quantize_pt2e
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    estimators = {
        "minmax": RangeEstimatorParametersSet.MINMAX,
        "mean-minmax": RangeEstimatorParametersSet.MEAN_MINMAX,
    }
    return quantize_pt2e(
        graph,
        quantizer,
        nncf.Dataset(source),
        subset_size=count,
        fast_bias_correction=True if step.bias_correction else None,
        smooth_quant=step.smooth_quant,
        activations_range_estimator_params=estimators[step.ranges],
        fold_quantize=False,
    )
