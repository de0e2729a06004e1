"""Frames, results and the times of their stages."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.frame import Frame
from edgecv.core.results import Classification
from edgecv.core.trace import Trace


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_frames_take_pictures(shape: tuple[int, ...]) -> None:
    frame = Frame(np.zeros(shape, dtype=np.uint8), captured_s=1.25, index=7, source="camera")
    shown = repr(frame)
    assert "x".join(map(str, shape)) in shown
    assert "1.250000" in shown
    assert "array" not in shown


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 6, 4), "uint8"), ((4, 6, 1), "uint8"), ((4,), "uint8"), ((4, 6, 3), "float32")]
)
def test_frames_refuse_other_arrays(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="allowed: uint8"):
        Frame(np.zeros(shape, dtype=dtype), captured_s=0.0, index=0)


def test_trace_adds_up_in_order() -> None:
    readings = iter([0.0, 0.001, 0.001, 0.004, 0.010, 0.011])
    trace = Trace(clock=lambda: next(readings))
    for name in ("preprocess", "infer", "preprocess"):
        with trace.stage(name):
            pass
    assert list(trace.stages_ms) == ["preprocess", "infer"]
    assert trace.stages_ms == {"preprocess": pytest.approx(2.0), "infer": pytest.approx(3.0)}
    assert trace.total_ms == pytest.approx(5.0)


def test_trace_keeps_the_time_of_a_stage_that_fails() -> None:
    trace = Trace()
    with pytest.raises(RuntimeError, match="engine"), trace.stage("infer"):
        raise RuntimeError("engine")
    assert trace.stages_ms["infer"] > 0


def test_empty_trace() -> None:
    assert Trace().total_ms == 0
    assert Trace().stages_ms is not Trace().stages_ms


def test_classification_without_labels_gives_numbers() -> None:
    result = Classification(np.array([0.1, 0.9], dtype=np.float32), np.array([1, 0]))
    assert result.best == 1
    assert [item["label"] for item in result.to_dict()["classes"]] == ["1", "0"]
