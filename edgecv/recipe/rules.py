"""What must hold between the values of a recipe, beyond the type and bounds of each one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecv.core.contract import InputContract
from edgecv.core.kinds import (
    DATA_KINDS,
    FAMILY_KINDS,
    DataKind,
    FamilyFacts,
    data_facts,
    family_facts,
    kinds_with,
    lower_is_better,
    metric_unit,
)
from edgecv.core.recipe import (
    STEP_KEYS,
    CalibrationSpec,
    DataSpec,
    Fit,
    Prune,
    Quantize,
    Step,
    Weights,
)
from edgecv.recipe.rules_training import is_taught, needs_training, reads_labels, trained_problems
from edgecv.recipe.typed import Found, did_you_mean, part, shown
from edgecv.recipe.yaml_lines import KeyPath

_SAME_SHAPE = 0.02


def broken_rules(plain: dict[str, Any]) -> list[Found]:
    """Every broken rule. Sections with problems of their own are passed over; `validate` names those."""
    return [
        *_model(_mapping(plain.get("model"))),
        *_family(_mapping(plain.get("family")), _mapping(plain.get("budgets"))),
        *_data(_mapping(plain.get("data")), _mapping(plain.get("family")), plain.get("steps")),
        *_clips(_mapping(_mapping(plain.get("model")).get("input")), _mapping(plain.get("family")).get("kind")),
        *_streams(_mapping(plain.get("model"))),
        *_crops(_mapping(plain.get("data")), part(InputContract, _mapping(plain.get("model")).get("input"))),
        *_steps(plain.get("steps"), _mapping(plain.get("data")), _mapping(plain.get("family"))),
        *_targets(plain.get("targets")),
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _model(model: dict[str, Any]) -> Iterator[Found]:
    contract = part(InputContract, model.get("input"))
    if contract is not None:
        for problem in contract.problems():
            yield ("model", "input", problem.split(" ", 1)[0]), problem.split(" ", 1)[1]
        if contract.vector:
            yield (
                ("model", "input", "vector"),
                "is true; a recipe optimises networks that see pictures. For one that takes rows of numbers there are "
                "edgecv import --vector and edgecv eval",
            )
    source = model.get("source")
    if isinstance(source, str):
        kind, _, name = source.partition(":")
        if kind == "python" and not all(name.rpartition(":")[::2]):
            yield ("model", "source"), f"is {source!r}; write python:module:function, such as python:my_nets:build"
        if kind == "onnx" and model.get("weights") is not None:
            yield ("model", "weights"), "an ONNX file holds its own weights; remove this"
    weights = part(Weights, model.get("weights"))
    if weights is not None:
        yield from _weights(weights)


def _weights(weights: Weights) -> Iterator[Found]:
    where: KeyPath = ("model", "weights")
    if (weights.path is None) == (weights.url is None):
        have = "neither" if weights.path is None else "both"
        yield where, f"{have} of path and url is given; exactly one is needed"
    if weights.url is not None:
        if not weights.url.startswith(("https://", "http://")):
            yield (*where, "url"), f"is {weights.url!r}; it must start with https:// or http://"
        if weights.sha256 is None:
            yield (*where, "url"), "a url needs sha256 (64 hex digits), so that only that very file is used"


def _family(family: dict[str, Any], budgets: dict[str, Any]) -> Iterator[Found]:
    labels, kind = family.get("labels"), family.get("kind")
    metric = _mapping(budgets.get("accuracy")).get("metric")
    where: KeyPath = ("budgets", "accuracy", "metric")
    facts = family_facts(kind)
    if facts is not None and isinstance(metric, str):
        allowed = facts.metrics
        if metric not in allowed:
            hint = did_you_mean(metric, allowed)
            yield where, f"is {metric!r}, which {kind} does not have{hint}; allowed for {kind}: {', '.join(allowed)}"
        elif isinstance(labels, list) and metric == "top5" and len(labels) <= 5:
            yield where, f"is top5, which is always right with {len(labels)} labels; use top1"
    yield from _accuracy_bounds(_mapping(budgets.get("accuracy")), facts)
    if isinstance(labels, list) and any(isinstance(label, str) and not label.strip() for label in labels):
        yield ("family", "labels"), "holds an empty name; each class needs one"


def _accuracy_bounds(budget: dict[str, Any], facts: FamilyFacts | None) -> Iterator[Found]:
    """A share cannot exceed 1; an error, and a metric with a unit of its own such as dB, can. An error has a highest
    value, the others have a lowest."""
    metric = budget.get("metric", None if facts is None else facts.metrics[0])
    error = isinstance(metric, str) and lower_is_better(metric)
    wrong, right = ("min", "max") if error else ("max", "min")
    if isinstance(metric, str) and budget.get(wrong) is not None:
        which = "an error, of which less is better" if error else "better the higher it is"
        yield ("budgets", "accuracy", wrong), f"is {budget[wrong]!r}; {metric} is {which}: set {right} instead"
    if error:
        return
    if isinstance(metric, str) and metric_unit(metric) != "share":
        return
    for key in ("max_drop", "min"):
        value = budget.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 1:
            yield (
                ("budgets", "accuracy", key),
                f"is {value!r}; {metric or 'a share'} is within 0..1, 0.01 = one point",
            )


def _data(data: dict[str, Any], family: dict[str, Any], steps: Any) -> Iterator[Found]:
    sets = ("eval", "train", "validation", "unlabelled")
    places: list[tuple[KeyPath, Any]] = [(("data", name), data.get(name)) for name in sets]
    calibration = _mapping(data.get("calibration"))
    places.append((("data", "calibration", "source"), calibration.get("source")))
    for where, value in places:
        spec = part(DataSpec, value)
        if spec is not None:
            yield from ((where + path, message) for path, message in data_problems(spec))
            yield from _data_fits(spec, where, family, steps)
            if spec.pieces is not None and where != ("data", "unlabelled"):
                yield (*where, "pieces"), f"is {spec.pieces}; pieces of pictures are cut in data.unlabelled only"
    if data.get("validation") is not None and data["validation"] == data.get("eval"):
        yield ("data", "validation"), "is the evaluation set; what is chosen by its pictures cannot be proven on them"
    known = [step for _, step in typed_steps(steps)]
    if data.get("unlabelled") is not None and known and not any(is_taught(step) for step in known):
        problem = "is never looked at: only a teacher answers for it. Give a finetune or qat step distill above 0"
        yield ("data", "unlabelled"), problem
    source = part(DataSpec, calibration.get("source"))
    if source is not None and calibration.get("select") == "stratified" and not DATA_KINDS[source.kind].classes:
        problem = f"is stratified, and kind {source.kind} has no classes to pick by; use random or k-center"
        yield ("data", "calibration", "select"), problem


def _clips(contract: dict[str, Any], kind: Any) -> Iterator[Found]:
    """Networks of some families see clips, all others one picture."""
    facts, where = family_facts(kind), ("model", "input", "clip")
    if facts is None or not contract:
        return
    if facts.clips and contract.get("clip") is None:
        yield where, f"is missing; {kind} needs the frames that its network sees, such as {{frames: 8, fps: 8}}"
    elif not facts.clips and contract.get("clip") is not None:
        takes = ", ".join(name for name, other in FAMILY_KINDS.items() if other.clips)
        yield where, f"is set, and {kind} looks at one picture; remove it ({takes} takes clips)"


def _streams(model: dict[str, Any]) -> Iterator[Found]:
    """Which sources have a network that looks at one frame at a time."""
    contract = part(InputContract, model.get("input"))
    source = model.get("source")
    if contract is not None and contract.streams and isinstance(source, str) and source.startswith("onnx:"):
        yield (
            ("model", "input", "clip", "stream"),
            "is true, and an ONNX file has no part that keeps a state; build the network in python:",
        )


def _crops(data: dict[str, Any], contract: InputContract | None) -> Iterator[Found]:
    """A stretched input bends what has another shape; in the camera loop the second stage cuts out what fits."""
    if contract is None or contract.resize != "stretch" or min(contract.size) < 1:
        return
    height, width = contract.size
    places = [("eval",), ("train",), ("validation",), ("unlabelled",), ("calibration", "source")]
    for place in places:
        value: Any = data
        for key in place:
            value = _mapping(value).get(key)
        spec = part(DataSpec, value)
        if spec is not None and spec.crop is not None and abs(spec.crop * height / width - 1) > _SAME_SHAPE:
            yield (
                ("data", *place, "crop"),
                f"is {spec.crop:g}; the input of {height} x {width} pixels needs {width / height:.4g}, or "
                "resize: letterbox",
            )


def _data_fits(spec: DataSpec, where: KeyPath, family: dict[str, Any], steps: Any) -> Iterator[Found]:
    """Whether the data have the truths that are needed: those of the family's metric; calibration and pictures for
    a teacher need none, and neither does training that only looks at the teacher."""
    facts = family_facts(family.get("kind"))
    if facts is None or not facts.data:
        return
    allowed, hint = facts.data, ""
    bare: tuple[DataKind, ...] = () if facts.clips else ("images", "video-frames", "coco-captions")
    if where[1] == "train":
        labels = [step for _, step in typed_steps(steps) if reads_labels(step, family)]
        allowed = allowed if labels else (*allowed, *bare)
        hint = "; pictures without labels do where every step that trains has distill: 1.0" if labels else ""
    elif where[1] in ("calibration", "unlabelled"):
        allowed = (*allowed, *bare)
    if spec.kind not in allowed:
        yield (
            (*where, "kind"),
            f"is {spec.kind}, which is not for {family['kind']} here; allowed: {', '.join(allowed)}{hint}",
        )


def data_problems(spec: DataSpec) -> Iterator[Found]:
    """Keys of a data set that do not go with its kind."""
    facts = DATA_KINDS[spec.kind]
    if facts.path == "none":
        if spec.path is not None:
            yield ("path",), f"is {spec.path!r}; {spec.kind} comes with edgecv or scikit-learn and takes no path"
    else:
        if spec.path is None:
            yield (), f"kind {spec.kind} needs path: {facts.what}"
        if spec.split != "all" and not facts.split:
            bundled = ", ".join(kind for kind, others in DATA_KINDS.items() if others.path == "none" or others.split)
            yield ("split",), f"is {spec.split!r}; only {bundled} have splits: name another path for {spec.kind}"
    for key in ("root", "only", "truth", "ignore_index", "depth_unit", "crop", "caption", "noise", "shot", "pieces"):
        value = getattr(spec, key)
        if value is not None and not getattr(facts, key):
            yield (key,), f"is {value!r}; it goes only with data of kind {', '.join(kinds_with(key)) or 'none'}"
    if facts.truth and facts.truth_needed and spec.truth is None:
        yield (), f"kind {spec.kind} needs truth: the folder with each picture's truth"


def typed_steps(steps: Any) -> list[tuple[KeyPath, Step]]:
    """The steps that are sound on their own, each with its path."""
    found: list[tuple[KeyPath, Step]] = []
    for index, item in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(item, dict) and len(item) == 1:
            ((key, value),) = item.items()
            step = part(STEP_KEYS[key], value) if key in STEP_KEYS else None
            if step is not None:
                found.append((("steps", index, key), step))
    return found


def _steps(steps: Any, data: dict[str, Any], family: dict[str, Any]) -> Iterator[Found]:
    known = typed_steps(steps)
    quantize = [where for where, step in known if isinstance(step, Quantize)]
    for where in quantize[1:]:
        yield where, "a second quantize step; a recipe has at most one, and it is the last step"
    if quantize and isinstance(steps, list) and quantize[0][1] != len(steps) - 1 and len(quantize) == 1:
        yield quantize[0], "quantize must be the last step: what is done after it would undo it"
    for where, step in known:
        need = needs_training(step)
        if need and data.get("train") is None:
            yield where, f"{need} needs training data: add data.train"
        if isinstance(step, Prune):
            yield from ((where, message) for message in _prune(step))
        elif isinstance(step, Fit):
            yield from ((where, message) for message in _fit(family.get("kind")))
        else:
            yield from ((where, message) for message in trained_problems(step, family))
        if isinstance(step, Quantize) and step.method == "ptq" and data.get("calibration") is None:
            yield where, "ptq needs data.calibration: the name of a manifest, or {source: {...}, samples: 128}"


def _fit(family: Any) -> Iterator[str]:
    facts = family_facts(family)
    if facts is not None and not facts.fits:
        fitting = ", ".join(kind for kind, others in FAMILY_KINDS.items() if others.fits)
        yield f"fit shows a network what is usual, and {family} has no use for it; it is for {fitting}"


def _prune(step: Prune) -> Iterator[str]:
    given = [name for name in ("speedup", "ratio", "latency_ms") if getattr(step, name) is not None]
    if step.pattern is not None:
        wanted = ["ratio"] if step.pattern == "unstructured" else []
        if given != wanted:
            have = ", ".join(given) or "neither of speedup, ratio and latency_ms"
            yield f"pattern {step.pattern} takes {'ratio alone' if wanted else 'none of these'}; given is {have}"
    elif len(given) != 1:
        have = f"both of {' and '.join(given)}" if given else "neither of speedup and ratio nor latency_ms"
        yield f"{have} is given; exactly one is needed"
    if step.by == "latency" and step.pattern is None and step.ratio is not None:
        yield "ratio is a share of channels and cannot go by latency; give speedup or latency_ms"
    if step.target is not None and not step.by_latency:
        yield f"target {step.target} is only looked at by latency; add by: latency, or remove target"


def _targets(targets: Any) -> Iterator[Found]:
    seen: set[str] = set()
    for index, name in enumerate(targets if isinstance(targets, list) else []):
        if isinstance(name, str) and name in seen:
            yield ("targets", index), f"{shown(name)} is listed twice"
        seen.add(str(name))


def with_defaults(plain: dict[str, Any]) -> dict[str, Any]:
    """Values that follow from others.

    qat without data.calibration takes a stratified pick of data.train; pictures without labels are picked at
    random; budgets.accuracy without a metric has the family's first.
    """
    return _default_metric(_default_select(_default_calibration(plain)))


def _default_calibration(plain: dict[str, Any]) -> dict[str, Any]:
    data = _mapping(plain.get("data"))
    qat = any(isinstance(step, Quantize) and step.method == "qat" for _, step in typed_steps(plain.get("steps")))
    train = data.get("train")
    if not qat or data.get("calibration") is not None or part(DataSpec, train) is None:
        return plain
    pick = {"source": train, "samples": CalibrationSpec.samples, "select": _usual_select(train)}
    return {**plain, "data": {**data, "calibration": pick}}


def _default_select(plain: dict[str, Any]) -> dict[str, Any]:
    data = _mapping(plain.get("data"))
    calibration = _mapping(data.get("calibration"))
    source = calibration.get("source")
    if "select" in calibration or _usual_select(source) == CalibrationSpec.select:
        return plain
    return {**plain, "data": {**data, "calibration": {**calibration, "select": _usual_select(source)}}}


def _usual_select(source: Any) -> str:
    facts = data_facts(_mapping(source).get("kind"))
    return "random" if facts is not None and not facts.classes else CalibrationSpec.select


def _default_metric(plain: dict[str, Any]) -> dict[str, Any]:
    budgets, kind = _mapping(plain.get("budgets")), _mapping(plain.get("family")).get("kind")
    accuracy = budgets.get("accuracy")
    if not isinstance(accuracy, dict) or "metric" in accuracy or not isinstance(kind, str):
        return plain
    facts = family_facts(kind)
    if facts is None:
        return plain
    return {**plain, "budgets": {**budgets, "accuracy": {**accuracy, "metric": facts.metrics[0]}}}
