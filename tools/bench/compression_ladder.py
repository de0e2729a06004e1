"""Our int8 network of a benchmark case: post-training quantisation with the repair ladder, as a build makes it.

The rungs are judged by the product's own judge on pictures that are neither calibrated on nor evaluated: by their
truths where the case has them, else by likeness to the float network's answers. As in a build, the accuracy gate is
asked before a climb by likeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from compression_cases import Case, read

from edgecv.build.judge import make_gate, make_judge
from edgecv.build.judge_pictures import JudgePictures
from edgecv.build.quantize import Training, make_fit
from edgecv.core.progress import SilentProgress
from edgecv.core.protocols import Sample
from edgecv.core.recipe import AccuracyBudget, Budgets, Data, DataSpec, ModelSpec, Quantize, Recipe
from edgecv.optimize.fabric import Devices
from edgecv.optimize.finetune import TrainSet
from edgecv.optimize.pixel_grid import pixel_range
from edgecv.optimize.qat import quantize_qat
from edgecv.optimize.quantized import QuantizedGraph
from edgecv.optimize.repair import Repair, Train, Workshop, repair

JUDGED = 48
"""Pictures that the rungs are judged on, at most."""


class Pictures:
    """Image files as a data set, without labels where there are no ``truths``."""

    def __init__(self, paths: Sequence[Path], truths: Sequence[Any] = ()) -> None:
        self._paths = tuple(paths)
        self.truths = tuple(truths) or (None,) * len(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(self._paths[index]), read(self._paths[index]), self.truths[index])


def recipe_of(case: Case) -> Recipe:
    """What a user would write for this case."""
    return Recipe(
        recipe=1,
        name="bench",
        model=ModelSpec("onnx:bench", input=case.contract),
        family=case.family,
        data=Data(eval=DataSpec("images")),
        targets=("host-onnxruntime",),
        budgets=Budgets(AccuracyBudget(case.budget, max_drop=case.max_drop)),
    )


def judged_on(case: Case) -> JudgePictures:
    """The ladder's own pictures."""
    every = max(1, len(case.held) // JUDGED)
    truths = case.held_truths[::every][:JUDGED]
    pictures: Any = Pictures(case.held[::every][:JUDGED], truths)
    return JudgePictures(pictures, labelled=bool(truths), origin="the benchmark")


def trainer(case: Case, module: Any, inputs: Sequence[np.ndarray], *, log: Path) -> Train:
    """Quantisation-aware training on the case's pictures with the float network as teacher."""
    import torch

    data = TrainSet(cast(Any, Pictures(case.train)), case.contract, case.family)

    def train(step: Quantize) -> tuple[QuantizedGraph, Any]:
        training = Training(data, case.make(), Devices(), None)
        made, _ = quantize_qat(
            module,
            torch.from_numpy(inputs[0]),
            step=step,
            calibration=lambda: ((item, None) for item in inputs),
            fit=make_fit(SilentProgress(), recipe_of(case), step, training),
            samples=len(inputs),
            log=log,
        )
        return made, made.program.module()

    return train


def quantised(
    case: Case, module: Any, inputs: Sequence[np.ndarray], *, log: Path
) -> tuple[QuantizedGraph, Repair | None]:
    """The Q/DQ program and the climb, from prepared calibration pictures `(1, C, H, W)` float32; method qat does not
    climb.
    """
    import torch

    step = Quantize(**{"method": "ptq", "repair": "full" if case.train else "ptq", **case.settings})
    if step.method == "qat":
        return trainer(case, module, inputs, log=log)(step)[0], None
    recipe, pictures = recipe_of(case), judged_on(case)
    workshop = Workshop(
        module,
        torch.from_numpy(inputs[0]),
        lambda: ((item, None) for item in inputs),
        make_judge(recipe, pictures, module),
        samples=len(inputs),
        gate=make_gate(recipe, pictures, cast(Any, Pictures(case.images, case.truths)), module),
        pixels=pixel_range(case.contract),
        train=trainer(case, module, inputs, log=log) if case.train else None,
        log=log,
    )
    return repair(workshop, step)


def words(climbed: Repair | None) -> list[str]:
    """The climb, a line a rung."""
    if climbed is None:
        return ["trained as its recipe says, without a ladder"]
    first, last = climbed.first, climbed.last
    lines = [f"ladder {climbed.outcome}: {first.value:.4f} (drop {first.drop.drop:+.4f}) -> {last.value:.4f}"]
    if climbed.gate is not None:
        lines.append(f"  the accuracy gate says: {climbed.gate.drop.drop:+.4f} is lost")
    for rung in climbed.rungs:
        after = "" if rung.after is None else f"{rung.before:.4f} -> {rung.after:.4f}, "
        kept = "kept" if rung.kept else f"rolled back ({rung.note})"
        lines.append(f"  {rung.rung}: {rung.what}; {after}{rung.seconds:.0f} s, {kept}")
    return [*lines, f"  settings: {climbed.settings}"]
