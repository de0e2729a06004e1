"""An artifact proves itself where it is: files and chain, pre-processing, the model file's insides, outputs, decoding.

Each rung stands on what was recorded, not on the rung before it, so the first that breaks is the one at fault; why it
broke is then looked for by trying (`edgecv.measure.diagnose_input` and its sisters) and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecv import backends, families
from edgecv.backends.contents import Contents, layer_values, read_contents
from edgecv.backends.stream import StreamEngine
from edgecv.core.artifact import Manifest, check_files, files_hash, read_manifest
from edgecv.core.figures import Diagnosis, Ladder, Outcome, Rung
from edgecv.core.protocols import Engine
from edgecv.core.state import split_state, state_problems
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ArtifactError, ModelError, ToolchainError
from edgecv.measure.diagnose_decode import diagnose_decode, diagnose_labels, same_results
from edgecv.measure.diagnose_graph import diagnose_edges, diagnose_graph, diagnose_outputs, diagnose_scales
from edgecv.measure.diagnose_input import diagnose_input
from edgecv.measure.fingerprint import Fingerprint, read_fingerprint
from edgecv.measure.golden import Golden, decoded, engine_inputs, first_inputs, load_golden
from edgecv.measure.ladder import Outputs, compiler_limits, ladder, max_abs_error, preprocess_rung, sqnr_db
from edgecv.runtime.load import tensor_differences
from edgecv.vision.clips import stacked
from edgecv.vision.image import input_problems
from edgecv.vision.preprocessor import Preprocessor

GOLDEN = "golden.npz"
CONTENTS = "contents.json"
_ASIDE = (GOLDEN, CONTENTS, "buildinfo.json", "report.json")

_Why = Callable[[], tuple[Diagnosis, ...]]
_Step = tuple[Rung, _Why]
"""A rung, and what finds out why it broke."""


@dataclass(frozen=True)
class Proof:
    """What `prove` found. ``ladder`` is None where the artifact carries nothing to compare with; ``skipped`` says what
    could not be checked here, and why."""

    files: int
    chain_file: str
    ladder: Ladder | None
    skipped: str

    @property
    def holds(self) -> bool:
        """Whether nothing that could be checked is wrong."""
        return self.ladder is None or self.ladder.first_broken is None


def prove(folder: Path, *, threads: int | None = None) -> Proof:
    """Check an artifact offline: every file's hash, the last link of the chain, and each step from picture to result.

    Raises:
        ArtifactError: a file is missing or changed, the chain's file hash is not that of the model files, or the
            manifest does not fit the model file.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    found = _chain_file(folder, manifest)
    names = {entry.path for entry in manifest.files}
    if GOLDEN not in names:
        return Proof(len(manifest.files), found, None, "it carries no golden pictures (imported, not built)")
    golden = load_golden(folder / GOLDEN)
    recorded = read_fingerprint(folder / CONTENTS) if CONTENTS in names else None
    _check_fit(folder, manifest, golden)
    skipped = ""
    steps = _input_steps(manifest, golden)
    try:
        steps += _engine_steps(folder, manifest, golden, recorded, threads)
    except ToolchainError as error:
        skipped = str(error)
    steps += _result_steps(manifest, golden)
    return Proof(len(manifest.files), found, _climbed(steps), skipped)


def _climbed(steps: Sequence[_Step]) -> Ladder:
    """The ladder with the causes of its first broken rung; what they blame is what that rung is blamed on."""
    rungs = [rung for rung, _ in steps]
    for index, (rung, why) in enumerate(steps):
        if rung.outcome == "fail":
            causes = why()
            rungs[index] = replace(rung, blame=causes[0].rung if causes else rung.blame)
            return ladder(rungs, causes)
    return ladder(rungs)


def _chain_file(folder: Path, manifest: Manifest) -> str:
    inside = manifest.model.rstrip("/") + "/"
    model = tuple(entry for entry in manifest.files if entry.path not in _ASIDE or entry.path.startswith(inside))
    found = files_hash(model)
    if manifest.chain.file and found != manifest.chain.file:
        raise ArtifactError(
            f"artifact {folder}: the chain names the model {manifest.chain.file[:16]}…, its files have {found[:16]}…; "
            "the manifest and the files are not of one build. Build the artifact again."
        )
    return found


def _check_fit(folder: Path, manifest: Manifest, golden: Golden) -> None:
    """What would leave nothing to compare: a contract of another shape than the golden inputs, or a broken one."""
    contract, shape = manifest.contract, golden.inputs.shape[1:]
    wrong = contract.problems() or input_problems(contract, manifest.inputs)
    if contract.streams and not wrong:
        wrong = state_problems(manifest.inputs, manifest.outputs)
    if not wrong and (contract.planes, *contract.size) != shape:
        wrong = [f"it gives inputs of shape {(contract.planes, *contract.size)}, the golden inputs have {shape}"]
    if wrong:
        raise ArtifactError(f"the input contract of artifact {folder} is wrong: {'; '.join(wrong)}. Build it again.")


def _input_steps(manifest: Manifest, golden: Golden) -> list[_Step]:
    """Pre-processing as this machine does it, without the engine."""
    spec = manifest.inputs[0]
    preprocessor, buffer = Preprocessor(manifest.contract.once, spec), np.zeros(spec.shape, dtype=spec.dtype)
    rows = []
    for picture in golden.pictures:
        parts = []
        for frame in picture if manifest.contract.streams else [picture]:
            preprocessor.into(frame, buffer)
            parts.append(np.array(stacked(spec.dequantize(buffer), spec.layout)))
        rows.append(np.concatenate(parts, axis=1))
    fed: FloatArray = np.concatenate(rows)
    rung = preprocess_rung(golden.inputs, fed, spec)
    return [(rung, lambda: diagnose_input(golden.inputs, fed, golden.pictures, manifest.contract))]


def _engine_steps(
    folder: Path, manifest: Manifest, golden: Golden, recorded: Fingerprint | None, threads: int | None
) -> list[_Step]:
    """The model file's insides and its outputs for the golden inputs.

    Raises:
        ToolchainError: the engine is not here, or the artifact is deferred.
    """
    _check_engine(folder, manifest)
    chosen, model = threads if threads is not None else manifest.threads, folder / manifest.model
    # First, as an engine may refuse a file for the very fault that shows here.
    contents = read_contents(manifest.backend, model) if recorded is not None else None
    if recorded is not None and manifest.backend != "onnxruntime" and not _same_engine(manifest):
        # Another version may read the same file into other operators; weights and scales are in the file itself.
        recorded = replace(recorded, operators={})
    try:
        engine = backends.get(manifest.backend).load(model, options=manifest.engine_options, threads=chosen)
    except ToolchainError as error:
        refusal = Diagnosis("compiler", f"the engine {manifest.backend} refuses the model file", "", "", str(error))
        refused = _judged("this machine", golden.outputs.name, len(golden.pictures), right=False, blame="compiler")
        return [*_content_steps(recorded, contents, (), len(golden.pictures)), (refused, lambda: (refusal,))]
    try:
        edges = _edges(folder, manifest, engine)
        outputs = _run(engine, manifest, golden.inputs)
    finally:
        engine.close()

    def why() -> tuple[Diagnosis, ...]:
        first = first_inputs(manifest.inputs, golden.inputs[:1])
        layers = layer_values(manifest.backend, model, first, chosen) if recorded is not None else {}
        expected, found = golden.outputs.arrays, outputs.arrays
        return diagnose_outputs(expected, found, _answers_of(manifest), recorded=recorded, layers=layers)

    steps = _content_steps(recorded, contents, edges, len(golden.pictures))
    return [*steps, (_answers(manifest, golden, outputs), why)]


def _same_engine(manifest: Manifest) -> bool:
    return backends.get(manifest.backend).version() == manifest.engine_version


def _check_engine(folder: Path, manifest: Manifest) -> None:
    """Raise `ToolchainError` where the engine is not here or not built yet."""
    if manifest.status == "deferred":
        raise ToolchainError(
            f"the engine of artifact {folder} ({manifest.backend}) is not built yet: it can only be built on the "
            f"device that will run it. Run there: edgecv build {folder}"
        )
    if manifest.backend not in backends.BACKENDS:
        raise ArtifactError(f"artifact {folder} is for the engine {manifest.backend!r}; a newer edgecv may know it")
    lacking = backends.get(manifest.backend).missing(to="run")
    if lacking is not None:
        raise ToolchainError(f"the outputs of artifact {folder} need the engine {manifest.backend}: {lacking}")


def _edges(folder: Path, manifest: Manifest, engine: Engine) -> tuple[Diagnosis, ...]:
    """Scales at the edges that the manifest has otherwise than the model file.

    Raises:
        ArtifactError: other numbers, shapes or types of tensors, or outputs that do not fit the family.
    """
    pairs = (("input", manifest.inputs, engine.inputs), ("output", manifest.outputs, engine.outputs))
    causes: list[Diagnosis] = []
    for kind, told, real in pairs:
        same_kind = len(told) == len(real) and all(
            (one.shape, one.dtype) == (other.shape, other.dtype) for one, other in zip(told, real, strict=True)
        )
        if not same_kind:
            found = "; ".join(tensor_differences(kind, told, real))
            raise ArtifactError(
                f"the model file of artifact {folder} does not fit its manifest: {found}. Build it again."
            )
        causes += diagnose_edges(kind, told, real)
    wrong = families.get(manifest.family.kind).problems(manifest.family, _answers_of(manifest))
    if wrong:
        raise ArtifactError(f"artifact {folder} does not fit together: {'; '.join(wrong)}")
    return tuple(causes)


def _content_steps(
    recorded: Fingerprint | None, contents: Contents | None, edges: tuple[Diagnosis, ...], samples: int
) -> list[_Step]:
    steps: list[_Step] = []
    scales = edges
    if recorded is not None and contents is not None:
        graph = diagnose_graph(recorded, contents)
        steps.append(
            (_judged("weights and operators", "as proven", samples, right=not graph, blame="graph"), lambda: graph)
        )
        scales = (*edges, *diagnose_scales(recorded.scales, contents))
    steps.append(
        (
            _judged("scales and zero points", "as proven", samples, right=not scales, blame="quantisation"),
            lambda: scales,
        )
    )
    return steps


def _answers_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The outputs that are answers, not the next state."""
    return split_state(manifest.inputs, manifest.outputs)[0]


def _run(engine: Engine, manifest: Manifest, inputs: FloatArray) -> Outputs:
    contract, spec = manifest.contract, manifest.inputs[0]
    stream = StreamEngine(engine, manifest.inputs, manifest.outputs)  # without a state, the engine itself
    width = contract.once.planes
    rows = []
    for row in range(len(inputs)):
        stream.reset()
        for first in range(0, inputs.shape[1], width):
            given = stream.run([engine_inputs(spec, inputs[row : row + 1, first : first + width])])
        rows.append([spec.dequantize(array) for spec, array in zip(stream.outputs, given, strict=True)])
    return Outputs("this machine", tuple(np.concatenate(column) for column in zip(*rows, strict=True)))


def _answers(manifest: Manifest, golden: Golden, found: Outputs) -> Rung:
    """The engine's outputs against those of the graph before it was compiled."""
    family = families.get(manifest.family.kind)
    min_db, min_agreement = compiler_limits(manifest.precision)
    decibel, agreement = sqnr_db(golden.outputs.arrays, found.arrays), 0.0
    if all(np.isfinite(array).all() for array in found.arrays):
        results = [
            [
                family.decode([array[i : i + 1] for array in form.arrays], manifest.family, manifest.contract)
                for i in range(found.samples)
            ]
            for form in (golden.outputs, found)
        ]
        agreement = float(np.mean([family.agree(one, two) for one, two in zip(*results, strict=True)]))
    sorts = families.sorts_rows(manifest.family)  # then only the answers can be compared, as in the ladder
    off = decibel == float("-inf") if sorts else decibel < min_db
    broken = off or agreement < min_agreement - 1.0 / found.samples
    return Rung(
        name=found.name,
        against=golden.outputs.name,
        samples=found.samples,
        sqnr_db=decibel,
        max_abs_error=max_abs_error(golden.outputs.arrays, found.arrays),
        agreement=agreement,
        metric=None,
        min_sqnr_db=None if sorts else min_db,
        outcome="fail" if broken else "pass",
        blame="compiler" if broken else "",
    )


def _result_steps(manifest: Manifest, golden: Golden) -> list[_Step]:
    """Decoding of the golden outputs, without the engine."""
    samples = len(golden.pictures)
    if not golden.results:
        return []
    try:
        found: Sequence[dict[str, object]] = decoded(
            golden.outputs, golden.pictures, manifest.family, manifest.contract
        )
    except ModelError as error:
        said = str(error)
        why = Diagnosis("decode", "the expected outputs cannot be decoded", "", "", said)
        return [(_judged("decoded results", "as proven", samples, right=False, blame="decode"), lambda: (why,))]
    same = same_results(found, golden.results)
    labels = diagnose_labels(golden, found) if same else ()
    return [
        (
            _judged("decoded results", "as proven", samples, right=same, blame="decode"),
            lambda: diagnose_decode(golden, manifest.family, manifest.contract, found=found),
        ),
        (_judged("labels", "as proven", samples, right=not labels, blame="metric"), lambda: labels),
    ]


def _judged(name: str, against: str, samples: int, *, right: bool, blame: str) -> Rung:
    """A rung that is right or wrong, without a ratio."""
    outcome: Outcome = "pass" if right else "fail"
    return Rung(name, against, samples, None, None, None, None, None, outcome, "" if right else blame)
