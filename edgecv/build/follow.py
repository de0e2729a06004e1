"""Training on several devices or machines: what every process but the first does.

A launcher (torchrun, Slurm) starts the same `edgecv optimize` in each process. The first does the whole
run; the others wait for the steps that training needs and join in the training steps, nothing else.
All of them need the same store, so on several machines it lies on a shared file system.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from edgecv.backends.common import quiet
from edgecv.build.context import Context
from edgecv.build.plan import PlannedStep
from edgecv.build.steps import shared_actions
from edgecv.core.recipe import Quantize, Recipe
from edgecv.errors import ToolchainError

POLL_S = 0.2
WAIT_S = 6 * 3600.0


def rank() -> int:
    """This process's number among those that a launcher started; 0 without one."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) or 0)


def follow(context: Context) -> None:
    """Join the first process in every training step of the plan that is not finished.

    Raises:
        ToolchainError: the first process did not finish a step in `WAIT_S`.
        EdgecvError: the training failed.
    """
    seen: set[str] = set()
    for target in context.plan.targets:
        for step in target.chain:
            if step.key not in seen:
                seen.add(step.key)
                _join(context, step, target.recipe)


def _join(context: Context, step: PlannedStep, recipe: Recipe) -> None:
    if context.store.record(step.key) is None and _trains(step, recipe):
        with tempfile.TemporaryDirectory() as folder, quiet(context.log):
            shared_actions()[step.kind](context, step, recipe, Path(folder))
    deadline_s = time.monotonic() + WAIT_S
    while context.store.record(step.key) is None:
        if time.monotonic() > deadline_s:
            raise ToolchainError(f"the first process did not finish {step.title!r} in {WAIT_S / 3600:.0f} hours")
        time.sleep(POLL_S)


def _trains(step: PlannedStep, recipe: Recipe) -> bool:
    qat = any(isinstance(item, Quantize) and item.method == "qat" for item in recipe.steps)
    return step.kind == "finetune" or (step.kind == "quantize" and qat)
