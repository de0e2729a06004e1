"""Finished steps become the artifact's folder: model, manifest, build information, golden pictures."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import edgecv
from edgecv.build.blame import CONTENTS
from edgecv.build.context import Context
from edgecv.build.plan import FilePlan, TargetPlan, versions
from edgecv.build.reference import GOLDEN
from edgecv.build.store import explained, hash_of
from edgecv.build.target_steps import CompiledFile, read_compiled
from edgecv.core.artifact import MANIFEST, Chain, Manifest, file_entries, files_hash, read_manifest, write_manifest
from edgecv.core.artifact import check_files as check_artifact
from edgecv.core.plain import to_plain
from edgecv.core.state import state_of
from edgecv.errors import ArtifactError

BUILDINFO = "buildinfo.json"
_RECORDED = (
    "torch",
    "torchvision",
    "torchao",
    "nncf",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "openvino",
    "litert-torch",
    "ai-edge-litert",
    "coremltools",
    "numpy",
)


def chain_of(context: Context, plan: FilePlan, made: CompiledFile | None) -> Chain:
    """The hash chain of one model file, as far as it has come."""
    record = context.store.record(plan.export.key)
    return Chain(
        recipe=context.plan.recipe_sha256,
        weights=context.plan.prints["weights"],
        calibration=context.plan.prints["calibration"] if plan.precision == "int8" else "",
        graph="" if record is None else str(record.effect.get("graph_sha256", "")),
        file="" if made is None else made.sha256,
    )


def publish(context: Context, target: TargetPlan, out: Path) -> Path:
    """Write the target's artifact to ``out / target name`` in one rename; an equal one is left alone.

    Raises:
        UsageError: the folder cannot be written, or holds something that is not an artifact.
        ToolchainError: the disk is full.
    """
    plan = target.optimized
    made = read_compiled(context, plan.compile.key)
    final = out / target.target.name
    manifest = _manifest(context, target, made)
    info = _buildinfo(context, target)
    if _is_there(final, manifest, info):
        return final
    partial = out / f".{target.target.name}.partial"
    with explained(out):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            shutil.copytree(made.folder, partial, dirs_exist_ok=True)
            if plan.reference is not None:
                shutil.copyfile(context.store.folder(plan.reference.key) / GOLDEN, partial / GOLDEN)
            if plan.verify is not None and (context.store.folder(plan.verify.key) / CONTENTS).is_file():
                shutil.copyfile(context.store.folder(plan.verify.key) / CONTENTS, partial / CONTENTS)
            (partial / BUILDINFO).write_text(info, encoding="utf-8")
            names = [entry.path for entry in made.entries]
            extra = [name for name in (GOLDEN, CONTENTS, BUILDINFO) if (partial / name).is_file()]
            write_manifest(partial, replace(manifest, files=file_entries(partial, [*names, *extra])))
            _swap(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def _swap(partial: Path, final: Path) -> None:
    """Put the new folder in the old one's place; the old one is only removed once it is out of the way."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(partial, final)
    shutil.rmtree(old, ignore_errors=True)


def _is_there(final: Path, manifest: Manifest, info: str) -> bool:
    """Whether the very same artifact is published already and its files are whole."""
    try:
        found = read_manifest(final)
        check_artifact(final, found)
    except ArtifactError:
        return False
    same_info = (final / BUILDINFO).is_file() and (final / BUILDINFO).read_text(encoding="utf-8") == info
    return same_info and replace(found, files=manifest.files) == manifest


def _manifest(context: Context, target: TargetPlan, made: CompiledFile) -> Manifest:
    recipe, compiled, board = target.recipe, made.compiled, target.target
    from edgecv import backends

    return Manifest(
        name=recipe.name,
        target=board.name,
        backend=board.backend,
        precision=target.optimized.precision,
        status=compiled.status,
        family=recipe.family,
        contract=recipe.model.input,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        state=state_of(compiled.inputs, compiled.outputs),
        model=compiled.model,
        files=made.entries,
        chain=chain_of(context, target.optimized, made),
        engine_options=dict(compiled.options),
        engine_version=backends.get(board.backend).version(),
        threads=board.threads,
        thermal=tuple(to_plain(zone) for zone in board.thermal_zones),
        notes=compiled.notes,
    )


def _buildinfo(context: Context, target: TargetPlan) -> str:
    """How the artifact was made: versions, steps with parameters and effects, the quantisation plan."""
    steps: list[dict[str, Any]] = []
    plan = target.optimized
    for step in (*target.chain, plan.export, plan.compile):
        record = context.store.record(step.key)
        effect = {} if record is None else record.effect
        steps.append({"kind": step.kind, "title": step.title, "key": step.key, "params": step.params, "effect": effect})
    quantized = context.store.folder(target.chain[-1].key) / "quantization.json"
    info = {
        "edgecv": edgecv.__version__,
        "versions": versions(_RECORDED),
        "target": asdict(target.target),
        "steps": steps,
        "quantization": json.loads(quantized.read_text(encoding="utf-8")) if quantized.is_file() else None,
    }
    return json.dumps(to_plain(info), indent=1, sort_keys=True) + "\n"


def result_hash(out: Path, names: list[str]) -> str:
    """One hash over the chains of the named artifacts below ``out``: equal for equal results."""
    found = {}
    for name in names:
        if (out / name / MANIFEST).is_file():
            manifest = read_manifest(out / name)
            found[name] = [to_plain(manifest.chain), files_hash(manifest.files)]
    return hash_of(found)
