"""What int8 costs, layer by layer: a recipe's steps up to the tuned float network, then the sensitivity table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv.build.calibration import open_checked
from edgecv.build.context import Context
from edgecv.build.judge import make_gate, make_judge, measure_words, score_module
from edgecv.build.judge_pictures import open_for_repair
from edgecv.build.plan import TargetPlan, metric_name
from edgecv.build.quantize import CALIBRATION_CACHE_MB
from edgecv.build.steps import rebuild, shared_actions
from edgecv.core.recipe import Quantize
from edgecv.core.sensitivity import Sensitivity
from edgecv.errors import UsageError

__all__ = ["Analysis", "analyze"]

TIMED_RUNS = 30
WARMUP_RUNS = 5


@dataclass(frozen=True)
class Analysis:
    """The table; where the repair ladder was asked for, what it found and the pictures that judged it."""

    table: Sensitivity
    repair: Any = None
    judged_on: str = ""


def analyze(
    context: Context, target: TargetPlan, *, pictures: int, scored: int, repair_with: str, timed: bool
) -> Analysis:
    """Sensitivity of the target's network on ``pictures`` calibration pictures.

    The task metric of every row is taken on ``scored`` evaluation pictures (0: not at all). ``timed`` measures each
    float layer in ONNX Runtime on this machine. ``repair_with`` is off or ptq, as in the recipe. Steps
    before quantisation come from the store, or are done now.

    Raises:
        UsageError: the recipe has no quantize step of method ptq or qat.
        EdgecvError: a step failed.
    """
    from edgecv.models.streaming import deploy_form, whole_form
    from edgecv.optimize.batches import make_batches
    from edgecv.optimize.examples import picture_shape, steps_of
    from edgecv.optimize.examples import pictures as stream
    from edgecv.optimize.pixel_grid import pixel_range
    from edgecv.optimize.ptq import prepare_ptq
    from edgecv.optimize.repair import Workshop, repair
    from edgecv.optimize.sensitivity import sensitivity

    recipe = target.recipe
    step = _as_ptq(target)
    original = _tuned(context, target)
    module, example = deploy_form(original, recipe.model.input)
    if repair_with != "off":
        reader, _, held = open_for_repair(context, recipe)
    else:
        (reader, _), held = open_checked(context, recipe), None
    clips = make_batches(reader, recipe.model.input, batch_size=8, cache_mb=CALIBRATION_CACHE_MB).fixed()
    calibration = steps_of(clips, module, example)
    given: dict[str, Any] = {"samples": len(reader), "pixels": pixel_range(recipe.model.input)}
    given |= {"progress": context.progress, "log": context.log}
    prepared = prepare_ptq(module, example, step=step, calibration=calibration, **given)
    times = _layer_times(module, example, _nodes_of(prepared.graph), log=context.log) if timed else {}

    def whole(candidate: Any) -> Any:
        return whole_form(candidate, example, recipe.model.input)

    def score(candidate: Any) -> float:
        return score_module(recipe, context.reader(recipe.data.eval), whole(candidate), limit=scored).figures.value

    table = sensitivity(
        prepared,
        stream(calibration, limit=pictures, shape=picture_shape(example)),
        score=score if scored else None,
        metric=metric_name(recipe),
        latency_ms=times,
        progress=context.progress,
    )
    if held is None:
        return Analysis(table)
    judge = make_judge(recipe, held, original)
    gate = make_gate(recipe, held, context.reader(recipe.data.eval), original)
    given |= {"latency_ms": times, "gate": gate and (lambda candidate: gate(whole(candidate)))}
    workshop = Workshop(module, example, calibration, lambda candidate: judge(whole(candidate)), **given)
    _, found = repair(workshop, replace(step, repair="ptq"))
    return Analysis(table, found, f"{held.words}, {measure_words(recipe, held)}")


def _as_ptq(target: TargetPlan) -> Quantize:
    """The recipe's quantize step with the scheme that the plan found, without training."""
    planned = next((step for step in target.chain if step.kind == "quantize"), None)
    for step in target.recipe.steps:
        if planned is not None and isinstance(step, Quantize) and step.method in ("ptq", "qat"):
            return replace(step, method="ptq", scheme=planned.params["step"]["scheme"])
    raise UsageError(f"{target.recipe.name} has no quantize step of method ptq or qat; there is no int8 to analyze")


def _tuned(context: Context, target: TargetPlan) -> Any:
    """The float network that quantisation takes."""
    shared, last = shared_actions(), None
    for step in target.chain:
        if step.kind == "quantize":
            break
        last = step

        def action(folder: Path, step: Any = step) -> Mapping[str, Any]:
            return shared[step.kind](context, step, target.recipe, folder)

        context.store.run(step.key, kind=step.kind, title=step.title, action=action)
    assert last is not None
    return rebuild(context, last.key, target.recipe)


def _nodes_of(graph: Any) -> dict[str, str]:
    """The layer of each node that belongs to one; what is fused into a layer goes by the name of its result."""
    from edgecv.optimize.switches import make_board

    layers = make_board(graph).layers
    return {node: layer.name for layer in layers for node in (layer.node, layer.output) if node}


def _layer_times(module: Any, example: Any, layers: Mapping[str, str], *, log: Path) -> dict[str, float]:
    """Median milliseconds of each float layer in ONNX Runtime on one thread, by the layer's name.

    What ONNX Runtime fuses into a layer counts as that layer's; a layer that it cannot tell apart has no time.
    """
    import onnxruntime

    from edgecv.optimize.export import export_program, write_onnx

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_onnx(export_program(module, example), folder / "model.onnx", log=log)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        feed = {item.name: value.numpy() for item, value in zip(session.get_inputs(), example, strict=True)}
        for _ in range(WARMUP_RUNS + TIMED_RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _medians(events, layers)


def _medians(events: list[dict[str, Any]], layers: Mapping[str, str]) -> dict[str, float]:
    durations: dict[str, list[float]] = {}
    for event in events:
        for node in _nodes(str(event.get("name", ""))):
            if node in layers:
                durations.setdefault(node, []).append(float(event["dur"]) / 1000)
    found: dict[str, float] = {}
    for node, values in durations.items():
        kept = sorted(values[-TIMED_RUNS:])
        found[layers[node]] = found.get(layers[node], 0.0) + kept[len(kept) // 2]
    return found


def _nodes(event: str) -> Iterator[str]:
    """Graph nodes that a profile's event may be of: node_conv2d_3_kernel_time and relu_1_nchwc_kernel_time."""
    if event.endswith("_kernel_time"):
        stem = event.removesuffix("_kernel_time").removesuffix("_nchwc")
        yield stem.removeprefix("node_").removeprefix("fused ").removeprefix("node_")
