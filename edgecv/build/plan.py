"""From recipe and targets to steps with their hashes; nothing is run and no heavy library is loaded.

A step's key is the hash of its kind, its parameters, the keys of the steps it takes, the tools it
uses and edgecv's own code: two steps with the same key give the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import edgecv
from edgecv import backends
from edgecv.backends.common import distribution_version
from edgecv.build.pruning import goal_title, resolved, timing_params
from edgecv.build.store import hash_of
from edgecv.core.calibration import CalibrationManifest
from edgecv.core.figures import MachineFacts
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.plain import to_plain
from edgecv.core.recipe import DataSpec, Finetune, Fit, Prune, Quantize, Recipe
from edgecv.core.target import Precision, Target
from edgecv.recipe.load import LoadedRecipe, recipe_for

ONNX_FED = ("onnxruntime", "openvino", "tensorrt", "null")
REFERENCE_SAMPLES = 64
GOLDEN_SAMPLES = 8

_TOOLS = {
    "load": ("torch", "torchvision", "timm", "transformers"),
    "prune": ("torch", "torch-pruning"),
    "finetune": ("torch", "lightning-fabric"),
    "fit": ("torch",),
    "quantize": ("torch", "torchao", "nncf"),
    "export": ("torch", "onnx", "onnxscript"),
    "reference": ("torch", "onnxruntime"),
}
_COMPILERS = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    "coreml": ("coremltools",),
}


@dataclass(frozen=True)
class PlannedStep:
    """One step: what it is, what it takes (keys), and its own key. ``target`` is "" where it is shared."""

    kind: str
    title: str
    key: str
    params: dict[str, Any]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilePlan:
    """The steps that make and prove one model file. A step that cannot run here is None."""

    role: str
    precision: Precision
    export: PlannedStep
    reference: PlannedStep | None
    compile: PlannedStep
    verify: PlannedStep | None
    evaluate: PlannedStep | None
    measure: PlannedStep | None


@dataclass(frozen=True)
class TargetPlan:
    """What is done for one target: the artifact, and the float model on the same engine to compare with."""

    target: Target
    recipe: Recipe
    chain: tuple[PlannedStep, ...]
    optimized: FilePlan
    float_reference: FilePlan

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        """Every step for this target, in order."""
        return (*self.making, *self.proving)

    @property
    def making(self) -> tuple[PlannedStep, ...]:
        """The steps up to the two files, in order; the float graph is exported as soon as its network is there, so that
        it can be compiled meanwhile."""
        early, found = self.float_reference.export, []
        for step in self.chain:
            found += [step, early] if step.key in early.inputs else [step]
        last = (self.optimized.export, self.optimized.reference, self.float_reference.compile, self.optimized.compile)
        return (*found, *(step for step in last if step is not None))

    @property
    def proving(self) -> tuple[PlannedStep, ...]:
        """The steps that prove and measure the two files, in order."""
        files = (self.float_reference, self.optimized)
        steps = (step for file in files for step in (file.verify, file.evaluate, file.measure))
        return tuple(step for step in steps if step is not None)


@dataclass(frozen=True)
class Plan:
    """The whole of a run. ``base`` is the folder that the recipe's paths are relative to."""

    recipe: Recipe
    resolved: dict[str, Any]
    recipe_sha256: str
    base: Path
    machine: MachineFacts
    targets: tuple[TargetPlan, ...]
    prints: dict[str, str]
    calibration: CalibrationManifest | None = None

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        """Every step once, in the order in which the runner does them."""
        unique: dict[str, PlannedStep] = {}
        for steps in (*(item.making for item in self.targets), *(item.proving for item in self.targets)):
            unique.update((step.key, unique.get(step.key, step)) for step in steps)
        return tuple(unique.values())


@dataclass(frozen=True)
class Inputs:
    """What the plan needs to know of the world: hashes of everything the recipe names.

    ``prints`` has the keys source, weights, eval, train, validation, unlabelled and calibration, "" where there is
    none.
    """

    prints: dict[str, str]
    machine: MachineFacts
    code: str


def code_fingerprint() -> str:
    """Hash over edgecv's own code: after an update every step is done anew, never mixed."""
    root = Path(edgecv.__file__).parent
    digest = hashlib.sha256(edgecv.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        if path.parent.name not in ("report", "commands") and path.name != "cli.py":
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions by distribution name; "" where one is missing."""
    return {name: distribution_version(name) for name in packages}


def make_plan(loaded: LoadedRecipe, *, only: Sequence[str] = (), inputs: Inputs) -> Plan:
    """The steps for every target of the recipe, or for those named in ``only``.

    Raises:
        RecipeError: ``only`` names a target that the recipe does not have.
        ModelError: a prune step wants a time of a target that cannot be measured here.
    """
    for name in only:
        recipe_for(loaded, name)
    targets = [target for target in loaded.targets if not only or target.name in only]
    planner = _Planner(inputs, loaded.targets)
    plans = tuple(planner.target(loaded.per_target[target.name], target) for target in targets)
    return Plan(
        loaded.recipe,
        loaded.resolved,
        loaded.sha256,
        loaded.base,
        inputs.machine,
        plans,
        dict(inputs.prints),
        loaded.calibration,
    )


def goes_straight(recipe: Recipe, target: Target) -> bool:
    """Whether an ONNX file goes to the target's engine as it is: float, unchanged, and an engine that reads ONNX.

    Every other ONNX file is imported into torch first.
    """
    changed = any(not isinstance(step, Quantize) or step.method in ("ptq", "qat") for step in recipe.steps)
    return recipe.model.source.startswith("onnx:") and not changed and target.backend in ONNX_FED


class _Planner:
    def __init__(self, inputs: Inputs, targets: Sequence[Target]) -> None:
        self._inputs, self._targets = inputs, targets

    def _step(
        self, kind: str, title: str, params: dict[str, Any], *inputs: PlannedStep, tools: Sequence[str] = ()
    ) -> PlannedStep:
        keys = tuple(step.key for step in inputs)
        used = versions((*_TOOLS.get(kind, ()), *tools))
        key = hash_of([kind, params, keys, used, self._inputs.code])
        return PlannedStep(kind, title, key, params, keys)

    def target(self, recipe: Recipe, target: Target) -> TargetPlan:
        load = self._load(recipe, straight=goes_straight(recipe, target))
        chain, last, precision = self._chain(recipe, load)
        original = _original(recipe, chain)
        optimized = self._file(
            "optimized", recipe, target, source=last, tuned=chain[-1], precision=precision, load=original
        )
        reference = self._file(
            "float", recipe, target, source=original, tuned=original, precision="fp32", load=original
        )
        shared = chain if last is chain[-1] else (*chain, last)
        return TargetPlan(target, recipe, shared, optimized, reference)

    def _load(self, recipe: Recipe, *, straight: bool) -> PlannedStep:
        prints = self._inputs.prints
        weights = recipe.model.weights
        params = {
            "input": asdict(recipe.model.input),
            "options": recipe.model.options,
            "keys": [weights.key, weights.strip_prefix, weights.strict] if weights else [],
            "family": asdict(recipe.family),
            "seed": recipe.seed,
            "source": prints["source"],
            "weights": prints["weights"],
            "straight": straight,
        }
        return self._step("load", f"load {recipe.model.source}", params)

    def _chain(self, recipe: Recipe, load: PlannedStep) -> tuple[tuple[PlannedStep, ...], PlannedStep, Precision]:
        """Steps up to the tuned float model, the step that export takes, and its precision."""
        prints = self._inputs.prints
        chain, precision = [load], "fp32"
        teacher = load
        for step in recipe.steps:
            params = {"step": asdict(step), "seed": recipe.seed}
            if isinstance(step, Prune):
                # What was learned before the first cut is worth passing on, so that network teaches.
                teacher = teacher if any(done.kind == "prune" for done in chain) else chain[-1]
                chain.append(self._prune(step, recipe.seed, chain[-1]))
            elif isinstance(step, Finetune):
                params |= self._training if step.epochs else {"train": ""}
                chain.append(self._step("finetune", f"fine-tune {step.epochs} epochs", params, chain[-1], teacher))
            elif isinstance(step, Fit):
                params["train"] = prints["train"]
                chain.append(self._step("fit", "fit to good pictures", params, chain[-1]))
                teacher = _original(recipe, chain) if teacher is load else teacher
            elif step.method == "fp16":
                precision = "fp16"
            elif step.method in ("ptq", "qat"):
                wanted, why = scheme_for(step, self._targets)
                params |= {"step": asdict(wanted), "calibration": prints["calibration"]}
                if step.method == "qat" or step.repair != "off":
                    params |= self._training
                if step.repair != "off":  # the ladder climbs by the limit, on pictures that are not in eval
                    params |= {"eval": prints["eval"], "accuracy": to_plain(recipe.budgets.accuracy)}
                    params["metric"] = metric_name(recipe)
                title = f"quantize {step.method} int8 {wanted.scheme}" + (f" ({why})" if why else "")
                return tuple(chain), self._step("quantize", title, params, chain[-1], _original(recipe, chain)), "int8"
        return tuple(chain), chain[-1], "fp16" if precision == "fp16" else "fp32"

    @property
    def _training(self) -> dict[str, str]:
        """The data of a step that trains; from sets beside the training set the pictures of eval are left out."""
        beside = [name for name in ("validation", "unlabelled") if self._inputs.prints[name]]
        sets = ("train", *beside, "eval") if beside else ("train",)
        return {name: self._inputs.prints[name] for name in sets}

    def _prune(self, step: Prune, seed: int, before: PlannedStep) -> PlannedStep:
        wanted, note = resolved(step, self._targets, trains=bool(self._inputs.prints["train"]))
        timing = timing_params(wanted, self._targets, self._inputs.machine)
        params = {"step": asdict(wanted), "seed": seed, "note": note, **timing}
        if wanted.needs_training:
            params["train"] = self._inputs.prints["train"]
        title = goal_title(wanted) + (f" ({note})" if note else "")
        return self._step("prune", title, params, before)

    def _file(
        self,
        role: str,
        recipe: Recipe,
        target: Target,
        *,
        source: PlannedStep,
        tuned: PlannedStep,
        precision: Precision,
        load: PlannedStep,
    ) -> FilePlan:
        prints = self._inputs.prints
        graph = "int8" if precision == "int8" else "float"
        export = self._step("export", f"export the {graph} graph of {source.title}", {"graph": graph}, source)
        reference = None
        if role == "optimized":
            samples = {"eval": prints["eval"], "samples": REFERENCE_SAMPLES, "metric": metric_name(recipe)}
            samples |= {"accuracy": to_plain(recipe.budgets.accuracy)}  # int8 may cost what the budget allows
            reference = self._step("reference", "reference outputs", samples, export, tuned, load)
        backend = backends.get(target.backend)
        made = self._step(
            "compile",
            f"compile {precision} for {target.backend}",
            {"backend": target.backend, "precision": precision, "options": target.engine_options},
            export,
            tools=_COMPILERS.get(target.backend, ()),
        )
        if backend.missing(to="run") is not None:
            return FilePlan(role, precision, export, reference, made, None, None, None)
        engine = {"engine": backend.version(), "threads": target.threads, "options": target.engine_options}
        name = f"{role} {precision} on {target.backend}"
        verify = None
        if reference is not None:
            verify = self._step("verify", f"verify {name}", engine, made, reference)
        judged = {**engine, "eval": prints["eval"], "metric": metric_name(recipe)}
        evaluate = self._step("evaluate", f"evaluate {name}", judged, made)
        measure = None
        if target.arch == "host":
            timed = {**engine, "measure": asdict(recipe.measure), "machine": asdict(self._inputs.machine)}
            measure = self._step("measure", f"measure {name}", {**timed, "eval": prints["eval"]}, made)
        return FilePlan(role, precision, export, reference, made, verify, evaluate, measure)


def _original(recipe: Recipe, chain: Sequence[PlannedStep]) -> PlannedStep:
    """The step that made the original network: load, or a fit right behind it, without which it would be unfinished."""
    return chain[1] if recipe.steps and isinstance(recipe.steps[0], Fit) and len(chain) > 1 else chain[0]


def metric_name(recipe: Recipe) -> str:
    """The metric that the recipe is judged by: its budget's, or else the family's first."""
    accuracy = recipe.budgets.accuracy
    return accuracy.metric if accuracy is not None else FAMILY_KINDS[recipe.family.kind].metrics[0]


def describe_data(spec: DataSpec) -> str:
    """A data set in a few words, for plans and reports."""
    return " ".join(part for part in (spec.kind, spec.path or "", spec.split if spec.split != "all" else "") if part)


def scheme_for(step: Quantize, targets: Sequence[Target]) -> tuple[Quantize, str]:
    """``step`` with scheme portable put as the best that all ``targets`` take, and why.

    TensorRT takes no zero points; with them, activations that are mostly positive have twice the steps.
    """
    if step.scheme != "portable":
        return step, ""
    strict = [target.name for target in targets if target.backend == "tensorrt"]
    if strict:
        return replace(step, scheme="symmetric"), f"for {strict[0]}"
    return replace(step, scheme="affine"), "all targets take zero points"
