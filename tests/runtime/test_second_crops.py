"""How the second stage cuts objects out: widened to the model's shape, or as they are for families that want that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.protocols import Pieces
from edgecv.core.tensor import Array, FloatArray
from edgecv.runtime import second
from edgecv.runtime.second import look, open_second
from edgecv.runtime.spec import SecondStage
from edgecv.runtime.work import load_levels
from edgecv.vision.crops import crop


@pytest.mark.parametrize(
    ("tight", "margin", "wanted"),
    [(False, None, (40, 50)), (False, 1.0, (32, 40)), (True, None, (20, 40)), (True, 1.5, (30, 60))],
)
def test_boxes_are_cut_as_the_family_wants(
    artifact: Path,
    tight: bool,
    margin: float | None,
    wanted: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (level,) = load_levels((str(artifact),), threads=1, score=None)
    kind = level.model.manifest.family.kind
    monkeypatch.setitem(FAMILY_KINDS, kind, replace(FAMILY_KINDS[kind], tight=tight))
    seen = []

    def watched(*args: object, **options: object) -> object:
        part = crop(*args, **options)  # type: ignore[arg-type]
        assert part is not None
        seen.append(part.image.shape[:2])
        return part

    monkeypatch.setattr(second, "crop", watched)
    assert level.model.subject.contract.size == (8, 10), "what is wanted above is for this shape"
    answer = look(level, np.zeros((200, 200, 3), np.uint8), np.array([80.0, 90.0, 120.0, 110.0]), margin=margin)
    level.model.close()
    assert answer is not None
    assert seen == [wanted]


@dataclass(frozen=True)
class Parts:
    """A result of pieces, none of which is a box; ``asked`` are the rows and margins that were cut out."""

    scores: FloatArray
    asked: list[tuple[int, float]] = field(default_factory=list)
    second: tuple[Any, ...] = ()

    def cut(self, image: Array, row: int, *, margin: float) -> Array | None:
        """A part of the picture; nothing for the second piece."""
        self.asked.append((row, margin))
        return None if row == 1 else image[:12, :30]

    def answered(self, answers: tuple[Any, ...]) -> Parts:
        """With the answers."""
        return replace(self, second=answers)


@pytest.mark.parametrize(
    ("stage", "rows", "margin"),
    [(SecondStage(""), [2, 0, 1], 1.0), (SecondStage("", max_objects=2, margin=1.2), [2, 0], 1.2)],
)
def test_pieces_are_cut_out_by_the_result_itself(
    artifact: Path, stage: SecondStage, rows: list[int], margin: float
) -> None:
    found = Parts(np.array([0.5, 0.4, 0.9], np.float32))
    assert isinstance(found, Pieces)
    runner = open_second(replace(stage, artifact=str(artifact)), ("text",), threads=1)
    try:
        answer = runner.apply(np.zeros((40, 60, 3), np.uint8), found)
    finally:
        runner.close()
    assert found.asked == [(row, margin) for row in rows], "the best first"
    assert [item is not None for item in answer.second] == [True, False, True]


def test_text_and_embeddings_take_boxes_as_they_are() -> None:
    assert {kind for kind, facts in FAMILY_KINDS.items() if facts.tight} >= {"text", "embedding"}
    assert not FAMILY_KINDS["classification"].tight
