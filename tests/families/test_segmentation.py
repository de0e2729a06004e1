"""Segmentation: reading each head, what does not fit, the overlay, and the loss."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.protocols import MapTruth, Result
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families import segmentation
from edgecv.families.segmentation_map import NO_CLASS, ClassMap, MaskTruth, class_color
from edgecv.vision.draw import Drawable, draw

CONTRACT = InputContract(size=(8, 8))
LABELS = ("background", "cat", "dog")


def spec(head: str = "logits", labels: tuple[str, ...] = LABELS, **more: Any) -> FamilySpec:
    return FamilySpec("segmentation", labels, head=head, **more)


def halves(low: float = -2.0, high: float = 3.0) -> np.ndarray:
    """A plane `(8, 8)` that is low on the left half and high on the right."""
    return np.repeat([[low] * 4 + [high] * 4], 8, axis=0).astype(np.float32)


RIGHT = np.repeat([[0] * 4 + [1] * 4], 8, axis=0)


def test_logits_in_both_layouts() -> None:
    planes = np.stack([np.zeros((8, 8), np.float32), halves(), np.full((8, 8), -9, np.float32)])[np.newaxis]
    for output in (planes, planes.transpose(0, 2, 3, 1)):
        for head in ("", "logits"):
            found = segmentation.decode([output], spec(head), CONTRACT)
            assert np.array_equal(found.classes, RIGHT)
    assert found.scores is None
    np.testing.assert_allclose(found.shares, [0.5, 0.5, 0.0])


def test_logits_at_the_pictures_size() -> None:
    planes = np.stack([np.zeros((8, 8), np.float32), halves(-1, 1), np.full((8, 8), -9, np.float32)])[np.newaxis]
    found = segmentation.decode([planes], spec(), CONTRACT, picture=(16, 32))
    assert found.classes.shape == (16, 32)
    assert np.array_equal(found.classes[0], [0] * 16 + [1] * 16)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8), (1, 8, 8, 1)])
def test_binary_planes_have_a_threshold(shape: tuple[int, ...]) -> None:
    pair = ("background", "person")
    output = halves(0.2, 1.0).reshape(shape)
    assert np.array_equal(segmentation.decode([output], spec("binary", pair), CONTRACT).classes, RIGHT * 0 + 1)
    strict = spec("binary", pair, options={"threshold": 0.7})
    assert np.array_equal(segmentation.decode([output], strict, CONTRACT).classes, RIGHT)
    shares = spec("binary", pair, outputs="probabilities", options={"threshold": 0.5, "scores": True})
    found = segmentation.decode([output], shares, CONTRACT)
    assert np.array_equal(found.classes, RIGHT)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, np.where(RIGHT, 1.0, 0.8), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8), (1, 8, 8, 1)])
def test_class_maps_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    found = segmentation.decode([(2 * RIGHT).astype(np.float32).reshape(shape)], spec("classmap"), CONTRACT)
    assert np.array_equal(found.classes, 2 * RIGHT)
    with pytest.raises(ModelError, match=r"gave class 3; allowed are 0\.\.2"):
        segmentation.decode([np.full(shape, 3, np.float32)], spec("classmap"), CONTRACT)


def test_scores_are_the_softmax_of_the_chosen_class() -> None:
    planes = np.stack([np.zeros((8, 8)), halves(0, 2), np.zeros((8, 8))]).astype(np.float32)[np.newaxis]
    found = segmentation.decode([planes], spec(options={"scores": True}), CONTRACT)
    assert found.scores is not None
    assert found.scores[0, 7] == pytest.approx(np.exp(2) / (2 + np.exp(2)))
    assert found.scores[0, 0] == pytest.approx(1 / 3)
    assert found.to_dict()["classes"][0]["score"] == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    planes = np.zeros((1, 3, 8, 8), np.float32)
    planes[0, 1, 2, 3] = bad
    with pytest.raises(ModelError, match="1 of 192 scores are NaN or infinite"):
        segmentation.decode([planes], spec(), CONTRACT)


@pytest.mark.parametrize(
    ("given", "shapes", "words"),
    [
        (spec(), [(1, 4, 8, 8)], "3 labels need (1, 3, h, w)"),
        (spec(), [(1, 8, 8)], "3 labels need"),
        (spec(), [(2, 3, 8, 8)], "3 labels need"),
        (spec(), [(1, 3, 8, 8)] * 2, "2 outputs"),
        (spec("binary", ("a", "b")), [(1, 2, 8, 8)], "head binary needs"),
        (spec("binary"), [(1, 1, 8, 8)], "exactly 2 are needed"),
        (spec("classmap"), [(1, 3, 8, 8)], "head classmap needs"),
        (spec("logit"), [(1, 3, 8, 8)], "Did you mean 'logits'"),
        (spec(background=True), [(1, 3, 8, 8)], "name the background as a label"),
        (spec("logits", ("one",)), [(1, 1, 8, 8)], "2 to 254 are allowed"),
        (spec(options={"void": "bird"}), [(1, 3, 8, 8)], "option 'void' is 'bird'"),
        (spec(options={"treshold": 0.4}), [(1, 3, 8, 8)], "no option 'treshold'"),
        (spec("binary", ("a", "b"), options={"threshold": 1}), [(1, 1, 8, 8)], "a number between 0 and 1"),
        (spec("classmap", options={"scores": True}), [(1, 8, 8)], "no option 'scores'"),
    ],
)
def test_what_does_not_fit_is_named(given: FamilySpec, shapes: list[tuple[int, ...]], words: str) -> None:
    outputs = [TensorSpec(f"y{index}", shape, "float32") for index, shape in enumerate(shapes)]
    (problem,) = segmentation.problems(given, outputs)
    assert words in problem


def test_what_fits_has_no_problem() -> None:
    for given, shape in (
        (spec(), (1, 3, 4, 4)),
        (spec(""), (1, 4, 4, 3)),
        (spec("classmap"), (1, 513, 513)),
        (spec("binary", ("a", "b")), (1, 1, 4, 4)),
    ):
        assert segmentation.problems(given, [TensorSpec("y", shape, "int64")]) == []
    with pytest.raises(ModelError, match=r"outputs of shape \(1, 2, 4, 4\); 3 labels need"):
        segmentation.decode([np.zeros((1, 2, 4, 4), np.float32)], spec(), CONTRACT)


def test_maps_agree_where_95_percent_do() -> None:
    one = ClassMap(np.zeros((10, 10), np.uint8), LABELS)
    other = one.classes.copy()
    other[0, :5] = 1
    assert segmentation.agree(one, ClassMap(other, LABELS))
    other[0, 5] = 1
    assert not segmentation.agree(one, ClassMap(other, LABELS))
    assert not segmentation.agree(one, ClassMap(np.zeros((10, 9), np.uint8), LABELS))


def test_likeness_minds_a_small_class_as_much_as_the_background() -> None:
    whole = np.zeros((20, 50), np.uint8)
    one, other, speck = whole.copy(), whole.copy(), whole.copy()
    one[:5, :10], other[:5, 5:15], speck[0, :4] = 1, 1, 2
    overlap = (25 / 75 + 925 / 975) / 2
    assert ClassMap(one).likeness(ClassMap(other)) == pytest.approx(overlap)
    assert ClassMap(one).likeness(ClassMap(one)) == 1
    assert ClassMap(whole).likeness(ClassMap(speck)) == pytest.approx(0.996), "four pixels are no class"
    assert ClassMap(whole).likeness(ClassMap(whole[:5])) == 0
    many = np.arange(200, dtype=np.uint8).repeat(2).reshape(20, 20)
    assert ClassMap(many).likeness(ClassMap(many)) == 1, "no class has a hundredth"


def test_a_result_tells_its_classes_by_area() -> None:
    classes = np.zeros((10, 10), np.uint8)
    classes[:7] = 2
    classes[9] = NO_CLASS
    found = ClassMap(classes, LABELS)
    assert found.words() == "dog 70.0%, background 20.0%"
    told = json.loads(json.dumps(found.to_dict()))
    assert told["size"] == [10, 10]
    assert told["classes"][0] == {"id": 2, "label": "dog", "share": 0.7}
    assert ClassMap(np.full((2, 2), NO_CLASS, np.uint8), LABELS).words() == "no class"
    assert isinstance(found, Drawable)
    result: Result = found
    assert result.words()


@pytest.mark.parametrize("build", [ClassMap, MaskTruth])
def test_maps_of_other_types_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="uint8 \\(H, W\\) is needed"):
        build(np.zeros((4, 4), np.int64))
    with pytest.raises(ValueError, match="uint8 \\(H, W\\) is needed"):
        build(np.zeros((4, 4, 1), np.uint8))


def test_the_overlay_paints_classes_and_leaves_the_background() -> None:
    classes = np.zeros((200, 300), np.uint8)
    classes[:100, :150] = 1
    classes[:100, 150:] = 2
    image = np.full((200, 300, 3), 100, np.uint8)
    draw(image, ClassMap(classes, LABELS))
    np.testing.assert_allclose(image[20, 20], [(100 + part) / 2 for part in class_color(1)], atol=1)
    np.testing.assert_allclose(image[20, 280], [(100 + part) / 2 for part in class_color(2)], atol=1)
    assert (image[150, 280] == 100).all()
    assert (image[180:, :60] != 100).any()  # the legend


def test_the_overlay_is_stretched_over_a_picture_of_another_size() -> None:
    classes = np.zeros((20, 30), np.uint8)
    classes[:, 15:] = 1
    image = np.full((200, 300, 3), 100, np.uint8)
    ClassMap(classes, LABELS).draw(image, 0.45)
    assert (image[50, 149] == 100).all()
    np.testing.assert_allclose(image[50, 151], [(100 + part) / 2 for part in class_color(1)], atol=1)


def test_colours_of_many_classes_differ() -> None:
    assert len({class_color(index) for index in range(36)}) == 36


def test_a_truth_follows_the_input_contract() -> None:
    truth = MaskTruth(np.ones((4, 8), np.uint8))
    assert isinstance(truth, MapTruth)
    fitted = truth.to_network(InputContract(size=(8, 8), resize="letterbox"))
    assert (fitted[:2] == NO_CLASS).all()
    assert (fitted[2:6] == 1).all()
    assert (fitted[6:] == NO_CLASS).all()


def test_the_family_is_in_the_table() -> None:
    assert families.get("segmentation") is segmentation
    with pytest.raises(UsageError, match="no metric 'iou'; allowed: miou, pixel_accuracy, dice"):
        segmentation.metric(spec(), "iou")


class TestLoss:
    """Against torch's own functions on the pixels that count."""

    def test_ignored_pixels_do_not_count(self) -> None:
        torch = pytest.importorskip("torch")
        functional = torch.nn.functional

        logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        truths = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        truths[0, :4] = NO_CLASS
        judged = truths != NO_CLASS
        expected = functional.cross_entropy(logits.permute(0, 2, 3, 1)[judged], truths[judged].long())
        assert torch.allclose(segmentation.loss(logits, truths, spec(), label_smoothing=0.0), expected)
        truths[:] = NO_CLASS
        assert segmentation.loss(logits, truths, spec(), label_smoothing=0.0).item() == 0.0

    def test_void_is_a_class_that_does_not_count(self) -> None:
        torch = pytest.importorskip("torch")

        logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        truths = torch.zeros(1, 4, 4, dtype=torch.uint8)
        truths[:, :2] = 2
        with_void = segmentation.loss(logits, truths, spec(options={"void": "dog"}), label_smoothing=0.0)
        truths[:, :2] = NO_CLASS
        assert torch.equal(with_void, segmentation.loss(logits, truths, spec(), label_smoothing=0.0))

    def test_smaller_maps_are_trained_where_they_are_decoded(self) -> None:
        """The gradient on a map of half the size pulls neither left nor right where the truth is symmetric."""
        torch = pytest.importorskip("torch")

        truths = torch.zeros(1, 8, 8, dtype=torch.uint8)
        truths[:, :, 4:] = 1
        logits = torch.zeros((1, 3, 4, 4), requires_grad=True)
        segmentation.loss(logits, truths, spec(), label_smoothing=0.0).backward()
        pull = logits.grad
        assert pull is not None
        assert torch.allclose(pull[:, 0], pull[:, 1].flip(2), atol=1e-7)
        sharp = torch.full((1, 3, 4, 4), -40.0)
        sharp[:, 0, :, :2], sharp[:, 1, :, 2:] = 40.0, 40.0
        assert segmentation.loss(sharp, truths, spec(), label_smoothing=0.0).item() < 1e-6

    def test_binary_is_cross_entropy_of_two_classes(self) -> None:
        torch = pytest.importorskip("torch")
        functional = torch.nn.functional

        pair = ("background", "person")
        scores = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        truths = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        expected = functional.binary_cross_entropy_with_logits(scores[:, 0], truths.float())
        assert torch.allclose(segmentation.loss(scores, truths, spec("binary", pair), label_smoothing=0.0), expected)
        shares = spec("binary", pair, outputs="probabilities")
        found = segmentation.loss(scores.sigmoid(), truths, shares, label_smoothing=0.0)
        assert torch.allclose(found, expected, atol=1e-5)

    def test_dice_falls_to_0_where_all_is_right(self) -> None:
        torch = pytest.importorskip("torch")

        truths = torch.zeros(1, 8, 8, dtype=torch.uint8)
        truths[:, :, 4:] = 1
        truths[:, 0] = NO_CLASS
        right = torch.nn.functional.one_hot(truths.long().clamp(max=2), 3).permute(0, 3, 1, 2) * 40.0
        only = spec(options={"dice": 1.0})
        assert segmentation.loss(right, truths, only, label_smoothing=0.0).item() < 1e-5
        assert segmentation.loss(right.flip(3), truths, only, label_smoothing=0.0).item() > 0.95

    def test_an_argmax_cannot_be_trained(self) -> None:
        torch = pytest.importorskip("torch")

        with pytest.raises(ModelError, match="argmax"):
            segmentation.loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), spec("classmap"), label_smoothing=0.0)


def test_the_layer_that_makes_the_scores_is_protected() -> None:
    pytest.importorskip("torch")
    from edgecv.models.reference_segmentation import unet

    assert segmentation.protected(unet(num_classes=3, width=4)) == ["head"]
