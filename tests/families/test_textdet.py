"""Text detection: maps to pieces of text, what they are trained on, and how they are judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.protocols import PartsMetric, Pieces, PlacedTruth
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import parts_from, textdet
from edgecv.families.textdet_maps import db_loss, target_maps
from edgecv.families.textdet_result import TextRegions, TextTruth
from edgecv.vision.draw import draw
from edgecv.vision.image import geometry
from edgecv.vision.polygons import iou
from tests.moves import moved

CONTRACT = InputContract(size=(128, 160))
SHRINK = 0.6


def spec(**options: Any) -> FamilySpec:
    """A family whose pieces were shrunk as in `SHRINK`."""
    return FamilySpec("text-detection", ("text",), head="db", options={"shrink": SHRINK, **options})


def turned(width: float, height: float, degrees: float, at: tuple[float, float]) -> np.ndarray[Any, Any]:
    """A rectangle around ``at``, its corners from the top left one on."""
    angle = math.radians(degrees)
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved: np.ndarray[Any, Any] = corners @ turn + at
    return moved


QUADS = np.stack([turned(70, 20, 0, (50, 30)), turned(60, 18, 20, (100, 80)), turned(60, 18, -25, (40, 90))])
TRUTH = TextTruth.of(QUADS, np.array([False, False, False]), ("A", "B", "C"))


def logits(truth: TextTruth, shape: tuple[int, int] = (128, 160)) -> np.ndarray[Any, Any]:
    """What a perfect network gives: `(1, 2, h, w)`."""
    placed = truth.placed(geometry((128, 160), CONTRACT), (128, 160))
    maps = target_maps(placed, shape, shrink=SHRINK)
    return np.stack([maps[0] * 16 - 8, np.zeros(shape, np.float32)])[None].astype(np.float32)


def overlaps(found: TextRegions, quads: np.ndarray[Any, Any] = QUADS) -> list[float]:
    """The best IoU of each true quadrilateral."""
    return [max((iou(quad, polygon) for polygon in found.polygons), default=0.0) for quad in quads]


@pytest.mark.parametrize("shape", ["quad", "outline"])
def test_what_was_shrunk_is_found_again(shape: str) -> None:
    found = textdet.decode([logits(TRUTH)], spec(shape=shape), CONTRACT)
    assert len(found) == 3
    assert min(overlaps(found)) > (0.88 if shape == "quad" else 0.8)
    assert found.scores == pytest.approx(1, abs=1e-3)


def test_quads_start_where_the_text_starts() -> None:
    found = textdet.decode([logits(TRUTH)], spec(), CONTRACT)
    for quad in QUADS:
        nearest = min(found.polygons, key=lambda item: float(np.abs(item.mean(axis=0) - quad.mean(axis=0)).sum()))
        assert np.abs(nearest - quad).max() < 3


def test_pieces_are_in_the_pictures_pixels() -> None:
    contract = InputContract(size=(128, 160), resize="letterbox")
    found = textdet.decode([logits(TRUTH)], spec(), contract, picture=(256, 400))
    place = geometry((256, 400), contract)
    assert place.offset == (13, 0)
    assert min(overlaps(found, np.array([place.to_picture(quad) for quad in QUADS]))) > 0.85
    low = textdet.decode([logits(TRUTH)], spec(), contract, picture=(96, 160))
    for polygon in low.polygons:
        assert (polygon >= 0).all()
        assert (polygon <= [160, 96]).all(), "what reaches into the padding is cut"


@pytest.mark.parametrize("form", ["planes last", "probabilities", "half"])
def test_layouts(form: str) -> None:
    family = spec()
    values = logits(TRUTH, (64, 80) if form == "half" else (128, 160))
    if form == "planes last":
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    if form == "probabilities":
        values = 1 / (1 + np.exp(-values[:, :1]))
        family = FamilySpec("text-detection", ("text",), outputs="probabilities", options={"shrink": SHRINK})
    assert textdet.problems(family, [TensorSpec("maps", values.shape, "float32")]) == []
    assert min(overlaps(textdet.decode([values], family, CONTRACT))) > (0.7 if form == "half" else 0.88)


def test_options() -> None:
    values = logits(TRUTH)
    loose = textdet.decode([values], spec(unclip=3.0), CONTRACT)
    exact = textdet.decode([values], spec(), CONTRACT)
    assert min(overlaps(exact)) > max(overlaps(loose))
    assert len(textdet.decode([values], spec(most=2), CONTRACT)) == 2
    weak = np.where(values > 0, np.float32(-0.2), values)  # a probability of 0.45
    assert len(textdet.decode([weak], spec(), CONTRACT)) == 3
    assert len(textdet.decode([weak], spec(threshold=0.5), CONTRACT)) == 0
    sure = FamilySpec("text-detection", ("text",), options={"shrink": SHRINK}, score_threshold=0.5)
    assert len(textdet.decode([weak], sure, CONTRACT)) == 0


def test_what_does_not_fit() -> None:
    good = TensorSpec("maps", (1, 1, 8, 8), "float32")
    assert "3" in textdet.problems(spec(), [TensorSpec("maps", (1, 3, 8, 8), "float32")])[0]
    assert "allowed: most" in textdet.problems(spec(shrunk=0.4), [good])[0]
    assert "0.0" in textdet.problems(spec(threshold=0.0), [good])[0]
    assert "head is 'east'" in textdet.problems(FamilySpec("text-detection", ("text",), head="east"), [good])[0]
    assert "2 labels" in textdet.problems(FamilySpec("text-detection", ("a", "b")), [good])[0]
    with pytest.raises(ModelError, match="NaN"):
        textdet.decode([np.full((1, 1, 8, 8), np.nan, np.float32)], spec(), CONTRACT)
    with pytest.raises(ModelError, match="shape"):
        textdet.decode([np.zeros((1, 3, 8, 8), np.float32)], spec(), CONTRACT)
    with pytest.raises(UsageError, match="hmean"):
        textdet.metric(spec(), "ap")


def found_at(*quads: np.ndarray[Any, Any]) -> TextRegions:
    """Findings, all as sure."""
    return TextRegions(tuple(quad.astype(np.float32) for quad in quads), np.full(len(quads), 0.9, np.float32))


def test_the_measure_counts_as_icdar_does() -> None:
    truth = TextTruth.of(QUADS, np.array([False, False, True]))
    judge = textdet.metric(spec(), "hmean")
    assert isinstance(judge, PartsMetric)
    judge.update(found_at(QUADS[0], QUADS[0] + 1, QUADS[2], QUADS[2] + [0, -40]), truth)
    # One right, one a second time, one on the ignored piece (not counted), one nowhere; the second piece is missed.
    figures = judge.compute()
    assert figures.extras == {"precision": pytest.approx(1 / 3), "recall": pytest.approx(1 / 2)}
    assert figures.value == pytest.approx(2 / 5)
    judge.update(found_at(*QUADS[:2]), truth)
    judge.update(found_at(), TextTruth((), ()))
    figures = judge.compute()
    assert figures.per_sample == pytest.approx([2 / 5, 1.0, 1.0])
    assert figures.value == pytest.approx(2 * 3 / (4 + 5))


def test_parts_give_the_measure_again() -> None:
    judge = textdet.metric(spec(), "hmean")
    judge.update(found_at(QUADS[0]), TRUTH)
    judge.update(found_at(*QUADS), TRUTH)
    parts = parts_from(judge.parts().arrays())
    values = parts.values(np.array([[1, 1], [1, 0], [0, 3]]))
    assert values == pytest.approx([judge.compute().value, 0.5, 1.0])


def test_truths_that_do_not_fit() -> None:
    judge = textdet.metric(spec(), "hmean")
    with pytest.raises(DataError, match="int"):
        judge.update(found_at(), 3)
    with pytest.raises(DataError, match="no picture"):
        judge.compute()
    judge.update(found_at(), TextTruth.of(QUADS, np.array([True] * 3)))
    with pytest.raises(DataError, match="ignored"):
        judge.compute()
    with pytest.raises(ValueError, match="3 polygons, 1 marks"):
        TextTruth(TRUTH.polygons, (True,))


def test_truths_move_with_their_pictures() -> None:
    assert isinstance(TRUTH, PlacedTruth)
    placed = TRUTH.placed(geometry((256, 320), InputContract(size=(128, 160))), (128, 160))
    assert np.array(placed.polygons) == pytest.approx(QUADS / 2)
    there = moved(placed, down=3, right=-2, mirrored=True)
    assert np.array(there.polygons)[..., 0] == pytest.approx(160 - (QUADS[..., 0] / 2 - 2))
    assert np.array(there.polygons)[..., 1] == pytest.approx(QUADS[..., 1] / 2 + 3)
    far = moved(placed, down=0, right=-38, mirrored=False)
    assert far.ignored == (True, False), "of what is mostly outside nothing can be said; the third is gone"
    assert far.texts == ("A", "B")
    assert len(moved(placed, down=0, right=200, mirrored=False).polygons) == 0


def test_target_maps() -> None:
    truth = TextTruth.of(QUADS[:1], np.array([False]))
    place = geometry((128, 160), CONTRACT)
    maps = target_maps(truth.placed(place, (128, 160)), (128, 160), shrink=SHRINK)
    reach = (1 - SHRINK**2) * 70 * 20 / (2 * 90)
    assert maps[0].sum() == pytest.approx((70 - 2 * reach) * (20 - 2 * reach), rel=0.08)
    assert maps[0][30, 50] == 1
    assert maps[2][30, 14:16].max() == pytest.approx(0.66, abs=0.01), (
        "the threshold is highest at the border, here half a pixel away"
    )
    assert maps[2][30, 50] == pytest.approx(0.3)
    assert maps[1].all()
    ignored = target_maps(TextTruth.of(QUADS[:1], np.array([True])).placed(place, (128, 160)), (128, 160), shrink=0.6)
    assert not ignored[0].any()
    assert ignored[1].sum() == pytest.approx(128 * 160 - 70 * 20)
    with pytest.raises(DataError, match="not placed"):
        target_maps(truth, (128, 160), shrink=SHRINK)


@pytest.mark.parametrize("planes", [1, 2])
def test_the_loss_leads_to_the_truth(planes: int) -> None:
    torch = pytest.importorskip("torch")
    placed = TRUTH.placed(geometry((128, 160), CONTRACT), (128, 160))
    values = torch.full((1, planes, 64, 80), -1.0, requires_grad=True)
    step = torch.optim.Adam([values], lr=0.5)
    values_seen = []
    for _ in range(60):
        value = textdet.loss(values, [placed], spec(), label_smoothing=0.0)
        values_seen.append(value.item())
        step.zero_grad()
        value.backward()
        step.step()
    assert values_seen[-1] < 0.25 * values_seen[0]
    assert min(overlaps(textdet.decode([values.detach().numpy()], spec(), CONTRACT))) > 0.65


def test_the_loss_refuses() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ModelError, match="1 or 2"):
        textdet.loss(torch.zeros(1, 3, 8, 8), [TRUTH], spec(), label_smoothing=0.0)
    with pytest.raises(DataError, match="TextTruth"):
        db_loss(torch.zeros(1, 1, 8, 8), [3], shrink=0.4, shares=False)
    empty = TextTruth((), (), size=(16, 16))
    assert torch.isfinite(db_loss(torch.zeros(1, 2, 8, 8), [empty], shrink=0.4, shares=False))


@dataclass(frozen=True)
class Said:
    """A reading."""

    text: str

    def brief(self) -> str:
        """The text."""
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"text": self.text}


def test_results_tell_and_draw_themselves() -> None:
    found = found_at(QUADS[1], QUADS[0])
    assert isinstance(found, Pieces)
    assert found.words() == "text in 2 places on 2 lines, scores 0.90, 0.90"
    assert found_at().words() == "no text"
    assert found.to_dict()["lines"] == [{"block": 0, "regions": [1]}, {"block": 1, "regions": [0]}]
    read = found.answered((Said("WORLD"), Said("HELLO")))
    assert read.text == "HELLO\n\nWORLD"
    assert read.words() == "HELLO // WORLD"
    plain = read.to_dict()
    assert plain["text"] == "HELLO\n\nWORLD"
    assert plain["regions"][0]["second"] == {"text": "WORLD"}
    assert plain["regions"][1]["polygon"][0] == [15.0, 20.0]
    image, bare = np.zeros((128, 160, 3), np.uint8), np.zeros((128, 160, 3), np.uint8)
    draw(image, read)
    draw(bare, found)
    assert image[38:42, 50].any(), "the lower side of the first piece is drawn"
    assert (image != bare).any(), "what was read stands in the picture"
    with pytest.raises(ValueError, match="2 polygons"):
        found.answered((Said("one"),))


def test_results_are_more_or_less_alike() -> None:
    all_three = found_at(*QUADS)
    assert all_three.likeness(found_at(*QUADS[:2])) == pytest.approx(4 / 5)
    assert textdet.agree(all_three, found_at(*QUADS[:2]))
    assert not textdet.agree(all_three, found_at(QUADS[0]))
    assert found_at().likeness(found_at()) == 1.0
    cut = all_three.cut(np.zeros((128, 160, 3), np.uint8), 0, margin=1.0)
    assert cut is not None
    assert cut.shape == (20, 72, 3), "a little longer at both ends"
