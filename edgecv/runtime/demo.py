"""`edgecv run --demo`: the bundled detector and a tracker on the synthetic camera, scored against its truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgecv import backends, demo
from edgecv.core.results import Detections
from edgecv.core.stream import FrameResult
from edgecv.errors import ToolchainError
from edgecv.measure.clear import ClearMot
from edgecv.runtime.session import Session, open_session
from edgecv.runtime.sources.synthetic import synthetic_source
from edgecv.runtime.spec import PipelineSpec

FRAMES = 600
_CAMERA = "synthetic:size=320x240,objects=4,seed=4,fps=30"


def demo_spec(spec: PipelineSpec) -> PipelineSpec:
    """``spec`` with the demo's models and camera wherever it names none.

    Raises:
        ToolchainError: none of the engines that the demo has an artifact for is installed.
    """
    installed = [name for name in demo.ENGINES if backends.get(name).missing(to="run") is None]
    if not installed and not spec.detect:
        raise ToolchainError(
            "the demo needs one inference engine: pip install onnxruntime (or openvino, or ai-edge-litert)"
        )
    return replace(
        spec,
        detect=spec.detect or (str(demo.artifact(installed[0])),),
        model=(),
        track=spec.track or "bytetrack",
        camera=_CAMERA if spec.camera == PipelineSpec().camera else spec.camera,
        frames=spec.frames or FRAMES,
        threads=spec.threads,
    )


def open_demo(spec: PipelineSpec) -> tuple[Session, ClearMot]:
    """The demo's session, and the score that its results are counted in.

    Raises:
        EdgecvError: as `edgecv.runtime.session.open_session`.
    """
    chosen = demo_spec(spec)
    score = ClearMot()
    truth = synthetic_source(chosen.camera.partition(":")[2], chosen.camera_options).truth

    def count(item: FrameResult) -> None:
        if isinstance(item.result, Detections):
            real = truth(item.frame.index)
            score.update(item.result, real.boxes, real.ids, real.ignored)

    return open_session(chosen, on_result=count), score


def run_demo(spec: PipelineSpec, *, hold: Callable[[Session], None]) -> tuple[Session, ClearMot]:
    """Run the demo to its end; ``hold`` keeps the main thread meanwhile."""
    session, score = open_demo(spec)
    hold(session)
    session.notes.append(
        f"MOTA {score.mota:.3f} against the synthetic camera's truth: {score.truths} objects, {score.matches} found, "
        f"{score.false_positives} false, {score.switches} changes of id"
    )
    return session, score
