"""The classification family: decoding, metrics, loss and heads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import classification

CONTRACT = InputContract(size=(8, 8))
LETTERS = tuple("abcdefgh")
SPEC = FamilySpec(kind="classification", labels=LETTERS)
SHARES = FamilySpec(kind="classification", labels=LETTERS, outputs="probabilities")


def scores(*values: float) -> list[np.ndarray]:
    return [np.array([values], dtype=np.float32)]


def test_get_knows_every_row_and_guesses() -> None:
    for kind, module in families.FAMILIES.items():
        assert families.get(kind) is module
        assert kind == module.KIND
    with pytest.raises(UsageError, match=r"'clasification'.*Did you mean 'classification'"):
        families.get("clasification")
    with pytest.raises(UsageError, match="allowed: classification"):
        families.get("zzz")


@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 1, 1), (1, 1, 1, 8)])
def test_fitting_shapes(shape: tuple[int, ...]) -> None:
    assert classification.problems(SPEC, [TensorSpec("y", shape, "float32")]) == []


@pytest.mark.parametrize(
    ("shape", "background", "says"),
    [
        ((1, 10), False, "8 labels need (1, 8)"),
        ((1, 9), False, "background: true"),
        ((1, 8), True, "background: false"),
        ((2, 4), False, "(2, 4)"),
        ((8,), False, "(8,)"),
        ((1, 10), True, "8 labels + 1 for the background need (1, 9)"),
    ],
)
def test_shapes_that_do_not_fit_show_both(shape: tuple[int, ...], background: bool, says: str) -> None:
    spec = FamilySpec(kind="classification", labels=LETTERS, background=background)
    (found,) = classification.problems(spec, [TensorSpec("y", shape, "float32")])
    assert says in found
    assert str(shape) in found


def test_two_outputs_do_not_fit() -> None:
    outputs = [TensorSpec("y", (1, 8), "float32"), TensorSpec("aux", (1, 8), "float32")]
    assert "2 outputs (y, aux)" in classification.problems(SPEC, outputs)[0]


def test_decode_logits() -> None:
    result = classification.decode(scores(0, 1, 2, 3, 4, 5, 6, 7), SPEC, CONTRACT)
    assert result.class_ids.tolist() == [7, 6, 5, 4, 3]
    assert result.class_ids.dtype == np.int64
    assert result.scores.dtype == np.float32
    wanted = np.exp(np.arange(8)) / np.exp(np.arange(8)).sum()
    np.testing.assert_allclose(result.scores, wanted, rtol=1e-6)
    assert result.to_dict()["classes"][0] == {"id": 7, "label": "h", "score": pytest.approx(wanted[7])}


def test_decode_leaves_probabilities_alone() -> None:
    values = (0.5, 0.125, 0.125, 0.25, 0.0, 0.0, 0.0, 0.0)
    result = classification.decode(scores(*values), SHARES, CONTRACT)
    np.testing.assert_array_equal(result.scores, np.float32(values))
    assert result.class_ids.tolist() == [0, 3, 1, 2, 4]  # equal scores: label order


def test_decode_breaks_ties_in_the_order_of_the_labels() -> None:
    """Quantised scores tie often; sorting that is not stable would make the answers depend on the processor."""
    spec = FamilySpec(kind="classification", labels=tuple(map(str, range(1000))), outputs="probabilities")
    values = np.repeat(np.float32([0.25, 0.5]), 500)[np.newaxis]
    assert classification.decode([values], spec, CONTRACT).class_ids.tolist() == [500, 501, 502, 503, 504]


def test_decode_drops_the_background() -> None:
    spec = FamilySpec(kind="classification", labels=("cat", "dog"), background=True)
    result = classification.decode(scores(9.0, 1.0, 2.0), spec, CONTRACT)
    assert result.class_ids.tolist() == [1, 0]
    assert result.scores.shape == (2,)
    assert result.scores.sum() < 0.01  # the background has nearly all


def test_decode_huge_logits_do_not_overflow() -> None:
    result = classification.decode(scores(3e38, 0, 0, 0, 0, 0, 0, -3e38), SPEC, CONTRACT)
    assert result.best == 0
    assert result.scores[0] == 1.0


def test_decode_ranks_logits_that_softmax_cannot_tell_apart() -> None:
    result = classification.decode(scores(-200, -201, 50, -199, -300, -300, -300, -300), SPEC, CONTRACT)
    assert result.class_ids.tolist()[:4] == [2, 3, 0, 1]


def test_decode_takes_maps_of_one_pixel() -> None:
    flat = np.arange(8, dtype=np.float32)
    for shape in ((1, 8, 1, 1), (1, 1, 1, 8)):
        assert classification.decode([flat.reshape(shape)], SPEC, CONTRACT).best == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_decode_refuses_nan_and_infinity(bad: float) -> None:
    with pytest.raises(ModelError, match="1 of 8 scores are NaN or infinite"):
        classification.decode(scores(0, bad, 0, 0, 0, 0, 0, 0), SPEC, CONTRACT)


def test_decode_refuses_another_width() -> None:
    with pytest.raises(ModelError, match=r"\(1, 3\); 8 labels need one \(1, 8\)"):
        classification.decode(scores(0, 1, 2), SPEC, CONTRACT)


def result(*order: int, count: int = 8, keep: int = 5) -> Classification:
    """A result whose classes rank in this order; the rest follow in label order."""
    full = list(order) + [index for index in range(count) if index not in order]
    points = np.zeros(count, dtype=np.float32)
    points[full] = np.linspace(1, 0, count)
    return Classification(points, np.array(full[:keep], dtype=np.int64), LETTERS)


def test_agree() -> None:
    assert classification.agree(result(3, 1), result(3, 2))
    assert not classification.agree(result(3, 1), result(1, 3))


def test_metric_counts() -> None:
    top1 = classification.metric(SPEC, "top1")
    top5 = classification.metric(SPEC, "top5")
    for metric in (top1, top5):
        metric.update(result(0, 1, 2, 3, 4), 0)  # first
        metric.update(result(0, 1, 2, 3, 4), 4)  # fifth
        metric.update(result(0, 1, 2, 3, 4), 5)  # sixth
        metric.update(result(1), np.int64(1))  # first
    one, five = top1.compute(), top5.compute()
    assert (one.metric, one.value, one.samples) == ("top1", 0.5, 4)
    assert one.per_sample == (1.0, 0.0, 0.0, 1.0)
    assert (five.metric, five.value) == ("top5", 0.75)
    assert five.per_sample == (1.0, 1.0, 0.0, 1.0)
    assert one.extras == five.extras
    assert one.extras == {"top1": 0.5, "top5": 0.75, "worst_class_recall": 0.0, "mean_class_recall": 0.5}


def test_metric_sees_beyond_a_short_list() -> None:
    """A result that keeps one class still tells the fifth best by its scores."""
    top5 = classification.metric(SPEC, "top5")
    top5.update(result(0, 1, 2, 3, 4, keep=1), 4)
    top5.update(result(0, 1, 2, 3, 4, keep=1), 5)
    assert top5.compute().per_sample == (1.0, 0.0)


def test_a_class_behind_the_list_is_never_ranked_into_it() -> None:
    """Softmax can make equal what the logits told apart; the list was made from the logits."""
    listed = Classification(np.full(8, 0.125, dtype=np.float32), np.array([7, 6, 5, 4, 3]), LETTERS)
    metric = classification.metric(SPEC, "top5")
    metric.update(listed, 0)
    metric.update(listed, 3)
    assert metric.compute().per_sample == (0.0, 1.0)


def test_equal_scores_do_not_make_a_second_best_right() -> None:
    flat = Classification(np.full(8, 0.125, dtype=np.float32), np.array([0]), LETTERS)
    metric = classification.metric(SPEC, "top1")
    metric.update(flat, 1)
    metric.update(flat, 0)
    assert metric.compute().per_sample == (0.0, 1.0)


def test_metric_refuses_wrong_names_truths_and_nothing() -> None:
    with pytest.raises(UsageError, match="'map'; allowed: top1, top5"):
        classification.metric(SPEC, "map")
    metric = classification.metric(SPEC, "top1")
    with pytest.raises(DataError, match="no picture"):
        metric.compute()
    for truth in (8, -1):
        with pytest.raises(DataError, match=r"allowed are 0\.\.7"):
            metric.update(result(0), truth)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Values of the score interval as published tables of Wilson's formula give them.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    found = classification.wilson(right, total)
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
    assert found.level == 0.95


def test_loss() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], requires_grad=True)
    truths = torch.tensor([0, 2])
    spec = FamilySpec(kind="classification", labels=("a", "b", "c"))
    log_shares = logits.detach().log_softmax(1)
    nll = -(log_shares[0, 0] + log_shares[1, 2]) / 2
    plain = classification.loss(logits, truths, spec, label_smoothing=0.0)
    assert plain.item() == pytest.approx(nll.item(), rel=1e-6)
    smooth = classification.loss(logits.reshape(2, 3, 1, 1), truths, spec, label_smoothing=0.1)
    assert smooth.item() == pytest.approx((0.9 * nll - 0.1 * log_shares.mean()).item(), rel=1e-6)
    smooth.backward()
    assert logits.grad is not None
    shares = FamilySpec(kind="classification", labels=("a", "b", "c"), outputs="probabilities")
    same = classification.loss(logits.softmax(1), truths, shares, label_smoothing=0.1)
    assert same.item() == pytest.approx(smooth.item(), rel=1e-5)
    behind = FamilySpec(kind="classification", labels=("b", "c"), background=True)
    moved = classification.loss(logits, torch.tensor([0, 1]), behind, label_smoothing=0.0)
    assert moved.item() == pytest.approx(-(log_shares[0, 1] + log_shares[1, 2]).item() / 2, rel=1e-6)


def test_protected_follows_the_graph_not_the_order() -> None:
    torch = pytest.importorskip("torch")

    class Swapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(4, 3)
            self.body = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)).mean((2, 3))) * 2.0

    class Branching(Swapped):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    assert classification.protected(Swapped()) == ["head"]
    assert classification.protected(Branching()) == ["body"]  # cannot be traced: the last one defined
    pooled = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 5, 1), torch.nn.AdaptiveAvgPool2d(1))
    assert classification.protected(pooled) == ["1"]
    with pytest.raises(ModelError, match="ReLU has no Linear"):
        classification.protected(torch.nn.ReLU())


@pytest.mark.parametrize(
    ("name", "head"), [("mobilenet_v3_small", "classifier.3"), ("resnet18", "fc"), ("squeezenet1_1", "classifier.1")]
)
@pytest.mark.build
def test_protected_of_torchvision(name: str, head: str) -> None:
    models = pytest.importorskip("torchvision.models")
    assert classification.protected(getattr(models, name)(weights=None)) == [head]
