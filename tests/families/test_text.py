"""The family text: layouts, CTC decoding, metrics against hand-made cases, loss, overlay, real plates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import text
from edgecv.families.text import Text
from edgecv.vision.draw import draw

SPEC = FamilySpec("text", ("a", "b", "c", "-"))
CONTRACT = InputContract(size=(32, 64))


def logits(places: str, symbols: str = "abc-", *, least: int = 7) -> np.ndarray:
    """Scores `(1, C, T)` whose best symbols are ``places``, then blanks."""
    places = places.ljust(least, "-")
    table = np.zeros((1, len(symbols), len(places)), np.float32)
    for place, symbol in enumerate(places):
        table[0, symbols.index(symbol), place] = 6.0
    return table


def read(output: np.ndarray, spec: FamilySpec = SPEC) -> Text:
    return text.decode([output], spec, CONTRACT)


@pytest.mark.parametrize(
    ("places", "wanted"),
    [("aab-b", "abb"), ("--a--", "a"), ("-----", ""), ("abcab", "abcab"), ("ccccc", "c"), ("a-a-a", "aaa")],
)
def test_repeats_count_once_and_blanks_not_at_all(places: str, wanted: str) -> None:
    assert read(logits(places)).text == wanted


def test_every_layout_reads_the_same() -> None:
    table = logits("ca-ab")
    for output in (
        table,
        table.transpose(0, 2, 1),
        table.transpose(2, 0, 1),
        table[:, :, None],
        table.transpose(0, 2, 1)[:, None],
    ):
        assert text.problems(SPEC, [TensorSpec("out", output.shape, "float32")]) == []
        assert read(output).text == "caab"


def test_the_blank_may_be_first_and_need_no_label() -> None:
    spec = FamilySpec("text", ("a", "b", "c"), options={"blank": "first"})
    assert read(logits("aa-b-c", "-abc"), spec).text == "abc"
    assert read(logits("aa-b-c", "-abc"), replace(spec, labels=("<blank>", "a", "b", "c"))).text == "abc"
    assert read(logits("aa-b-c", "abc-"), replace(spec, options={})).text == "abc"


def test_a_square_output_needs_the_layout_named() -> None:
    output = logits("ab-c", least=4)
    shape = [TensorSpec("out", output.shape, "float32")]
    assert "layout" in text.problems(SPEC, shape)[0]
    spec = replace(SPEC, options={"layout": "CT"})
    assert text.problems(spec, shape) == []
    assert read(output, spec).text == "abc"
    assert read(output.transpose(0, 2, 1), replace(SPEC, options={"layout": "TC"})).text == "abc"


def test_a_space_has_a_label() -> None:
    spec = FamilySpec("text", ("a", text.SPACE, "c", "blank"))
    assert text.problems(spec, [TensorSpec("out", (1, 4, 9), "float32")]) == []
    assert read(logits("ab-c-"), spec).text == "a c"


def test_a_symbol_has_the_best_probability_of_its_run() -> None:
    table = np.full((1, 4, 6), 0.05, np.float32)
    for place, (row, share) in enumerate([(0, 0.6), (0, 0.85), (3, 0.85), (1, 0.5), (3, 0.85), (3, 0.85)]):
        table[0, row, place] = share
    found = read(table, replace(SPEC, outputs="probabilities"))
    assert found.text == "ab"
    assert found.scores == pytest.approx((0.85, 0.5))
    assert found.score == pytest.approx(0.675)
    nothing = read(logits("-----"))
    assert (nothing.score, nothing.scores) == (0.0, ())
    # Softmax over four scores, one of them 6 above the others.
    assert read(logits("-a---")).score == pytest.approx(np.exp(6) / (np.exp(6) + 3), abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "shape", "words"),
    [
        (SPEC, (1, 7, 9), "C = 5 for 4 labels"),
        (SPEC, (2, 4, 9), "text needs one"),
        (SPEC, (1, 4), "text needs one"),
        (replace(SPEC, head="attention"), (1, 4, 9), "head is 'attention'"),
        (replace(SPEC, options={"blank": 3}), (1, 4, 9), "first and last"),
        (replace(SPEC, options={"beam": 3}), (1, 4, 9), "no option of text"),
        (replace(SPEC, background=True), (1, 4, 9), "family.options.blank"),
        (replace(SPEC, labels=("ab", "b", "c", "-")), (1, 4, 9), "'ab' has 2 letters"),
        (replace(SPEC, labels=("a", "a", "c", "-")), (1, 4, 9), "more than once"),
        (replace(SPEC, labels=("a", "b", "c", "--")), (1, 5, 9), "'--' has 2 letters"),
    ],
)
def test_what_does_not_fit_is_named(spec: FamilySpec, shape: tuple[int, ...], words: str) -> None:
    found = text.problems(spec, [TensorSpec("out", shape, "float32")])
    assert len(found) == 1
    assert words in found[0]


def test_broken_outputs_are_refused() -> None:
    broken = logits("ab-ab")
    broken[0, 1, 2] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        read(broken)
    with pytest.raises(ModelError, match="text needs one"):
        text.decode([broken, broken], SPEC, CONTRACT)
    with pytest.raises(ModelError, match="text needs one"):
        read(np.zeros((1, 9, 9), np.float32))


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distance(one: str, other: str, wanted: int) -> None:
    assert text.edit_distance(one, other) == wanted
    assert text.edit_distance(other, one) == wanted


def test_metrics_of_hand_made_readings() -> None:
    pairs = [("abc", "abc"), ("ab", "abc"), ("xyz", "abc"), ("", "ab"), ("abcd", "ab")]
    counted = {name: text.metric(SPEC, name) for name in text.METRICS}
    for found, truth in pairs:
        for metric in counted.values():
            metric.update(Text(found, 0.9, ()), truth)
    exact, similarity = counted["exact"].compute(), counted["similarity"].compute()
    assert (exact.value, exact.samples, exact.per_sample) == (0.2, 5, (1.0, 0.0, 0.0, 0.0, 0.0))
    assert exact.interval is not None
    assert exact.interval.low < 0.2 < exact.interval.high
    # 0 + 1 + 3 + 2 + 2 edits over 3 + 3 + 3 + 2 + 2 letters.
    assert exact.extras == {"similarity": similarity.value, "cer": pytest.approx(8 / 13)}
    assert similarity.value == pytest.approx((1 + 2 / 3 + 0 + 0 + 0.5) / 5)
    assert similarity.extras["exact"] == 0.2
    with pytest.raises(UsageError, match="no metric 'top1'"):
        text.metric(SPEC, "top1")
    with pytest.raises(DataError, match="no picture"):
        text.metric(SPEC, "exact").compute()
    with pytest.raises(DataError, match="kind text"):
        text.metric(SPEC, "exact").update(Text("a", 1.0, ()), 3)


def test_a_result_says_and_draws_itself() -> None:
    found = Text("京PL3N67", 0.9712345, (0.99, 0.95))
    assert json.loads(json.dumps(found.to_dict()))["text"] == "京PL3N67"
    assert found.words() == '"京PL3N67" 0.971'
    assert found.brief() == "京PL3N67"
    assert text.agree(found, replace(found, score=0.1))
    assert not text.agree(found, replace(found, text="京PL3N61"))
    image = np.zeros((120, 400, 3), np.uint8)
    draw(image, found)
    assert image[:30].any()
    assert not image[60:].any()


def test_loss_is_that_of_torch_and_falls_for_the_right_text() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(3)
    table = torch.from_numpy(random.normal(size=(2, 4, 9)).astype(np.float32))
    truths = ["abca", "b"]
    wanted = torch.nn.functional.ctc_loss(
        table.permute(2, 0, 1).log_softmax(2),
        torch.tensor([[0, 1, 2, 0], [1, 0, 0, 0]]),
        torch.tensor([9, 9]),
        torch.tensor([4, 1]),
        blank=3,
    )
    for outputs in (table, table.transpose(1, 2), (table[:, :, None],)):
        assert float(text.loss(outputs, truths, SPEC, label_smoothing=0.0)) == pytest.approx(float(wanted))
    shares = replace(SPEC, outputs="probabilities")
    assert float(text.loss(table.softmax(1), truths, shares, label_smoothing=0.0)) == pytest.approx(float(wanted))
    right = torch.from_numpy(np.concatenate([logits("ab-c-a", least=9), logits("--bb", least=9)]))
    assert float(text.loss(right, truths, SPEC, label_smoothing=0.0)) < 0.3


def test_loss_refuses_what_it_cannot_learn_from() -> None:
    torch = pytest.importorskip("torch")
    table = torch.zeros(2, 4, 9)
    with pytest.raises(DataError, match="'x', which is no label"):
        text.loss(table, ["ab", "ax"], SPEC, label_smoothing=0.0)
    with pytest.raises(DataError, match="'-'"):
        text.loss(table, ["ab", "a-"], SPEC, label_smoothing=0.0)
    with pytest.raises(ModelError, match="label_smoothing"):
        text.loss(table, ["ab", "a"], SPEC, label_smoothing=0.1)
    with pytest.raises(ModelError, match="comes first in training"):
        text.loss(table.permute(2, 0, 1), ["ab", "a"], SPEC, label_smoothing=0.0)
    too_long = text.loss(torch.zeros(1, 4, 9), ["abcabcabcabc"], SPEC, label_smoothing=0.0)
    assert float(too_long) == 0.0


@pytest.mark.build
def test_published_lprnet_reads_plates(shared_data: Path, tmp_path: Path) -> None:
    import torch

    from edgecv.core.recipe import DataSpec, ModelSpec, Weights
    from edgecv.data.readers import open_reader
    from edgecv.models.load import load_model
    from edgecv.vision.image import preprocess

    labels = tuple((shared_data / "ocr-mini/plates/charset.txt").read_text(encoding="utf-8").split())
    spec = FamilySpec("text", labels)
    contract = InputContract(size=(24, 94), color="bgr", mean=(0.5,) * 3, std=(0.50196,) * 3)
    model = ModelSpec(
        "python:edgecv.models.reference_text:lprnet",
        contract,
        Weights(path="models/lprnet/Final_LPRNet_model.pth"),
    )
    module = load_model(model, family=spec, base=shared_data, cache=tmp_path, seed=0)
    data = DataSpec("text", path="ocr-mini/plates/labels.csv", limit=100)
    metric = text.metric(spec, "exact")
    with torch.no_grad():
        reader = open_reader(data, base=shared_data, labels=labels)
        for sample in (reader[index] for index in range(len(reader))):
            inputs = torch.from_numpy(preprocess(sample.image, contract, layout="NCHW")[None])
            metric.update(text.decode([module(inputs).numpy()], spec, contract), sample.truth)
    # 90.25 % on all 400; three standard deviations of 100 draws are 9 points.
    assert metric.compute().value >= 0.81
    assert text.protected(module) == ["container.0"]
