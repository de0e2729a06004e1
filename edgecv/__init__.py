"""edgecv: take a vision model to a board, prove it, and run it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.runtime.session import Session

__all__ = ["__version__", "run"]

__version__ = "0.1.0"


def run(
    *,
    camera: str | int = 0,
    detect: str | Sequence[str] = (),
    model: str | Sequence[str] = (),
    track: str = "",
    second: str = "",
    sinks: Sequence[str] = (),
    live: str = "",
    options: Mapping[str, Any] | None = None,
) -> "Session":
    """Run artifacts on a camera, a video or pictures: ``for result in edgecv.run(detect=..., camera=0): ...``.

    ``detect`` (objects) or ``model`` (any family) is an artifact's folder, or several from the best to the
    fastest; ``second`` looks at each object. ``options`` are further fields of
    `edgecv.runtime.spec.PipelineSpec`, such as ``frames``, ``policy`` or ``report``. Each result is an
    `edgecv.core.stream.FrameResult`; leaving the loop stops the camera. Used in a ``with`` statement, the
    session gives ``status()``, ``figures()`` and ``report()`` besides.

    Raises:
        EdgecvError: an artifact, the camera or a sink cannot be used.
    """
    from edgecv.runtime.session import open_session
    from edgecv.runtime.spec import PipelineSpec, SecondStage

    def several(value: str | Sequence[str]) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(value)

    spec = PipelineSpec(
        camera=str(camera),
        detect=several(detect),
        model=several(model),
        track=track,
        second=SecondStage(second) if second else None,
        sinks=tuple(sinks),
        live=live,
        **dict(options or {}),
    )
    return open_session(spec)
