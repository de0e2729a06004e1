"""How the second stage cuts objects out: widened to the model's shape, or as they are for families that want that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.kinds import FAMILY_KINDS
from edgecv.runtime import second
from edgecv.runtime.second import look
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


def test_text_and_embeddings_take_boxes_as_they_are() -> None:
    assert {kind for kind, facts in FAMILY_KINDS.items() if facts.tight} >= {"text", "embedding"}
    assert not FAMILY_KINDS["classification"].tight
