"""The ladder's figures against closed forms, and who is blamed for which fault."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.figures import Diagnosis
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError
from edgecv.measure.ladder import (
    COMPILER_MIN_AGREEMENT,
    COMPILER_MIN_DB,
    Judge,
    Outputs,
    compiler_limits,
    deferred_rung,
    ladder,
    load_outputs,
    max_abs_error,
    preprocess_rung,
    save_outputs,
    sqnr_db,
)

SPEC = FamilySpec("classification", ("a", "b", "c"))
CONTRACT = InputContract((8, 8))
SAMPLES = 64


def outputs(name: str, noise: float, seed: int = 0) -> Outputs:
    truths = np.arange(SAMPLES) % 3
    logits = np.eye(3, dtype=np.float32)[truths] * 4
    random = np.random.default_rng(seed)
    return Outputs(name, ((logits + noise * random.standard_normal(logits.shape)).astype(np.float32),))


def judge() -> Judge:
    return Judge(SPEC, CONTRACT, [index % 3 for index in range(SAMPLES)], "top1")


def test_sqnr_of_a_known_ratio() -> None:
    signal = np.full(1000, 10.0, dtype=np.float32)
    assert sqnr_db([signal], [signal + 1]) == pytest.approx(20.0)
    assert sqnr_db([signal, signal], [signal + 1, signal]) == pytest.approx(20.0 + 10 * math.log10(2))


def test_sqnr_at_the_edges() -> None:
    ones, zeros = np.ones(4), np.zeros(4)
    assert sqnr_db([ones], [ones]) == math.inf
    assert sqnr_db([zeros], [ones]) == -math.inf
    assert sqnr_db([ones], [np.array([1, np.nan, 1, 1])]) == -math.inf


def test_largest_error_is_found_in_any_output() -> None:
    one, other = np.zeros((2, 3)), np.zeros((2, 3))
    other[1, 2] = -0.5
    assert max_abs_error([one, one], [one, other]) == 0.5
    assert max_abs_error([one], [np.full((2, 3), np.inf)]) == math.inf


def test_a_rung_that_holds() -> None:
    rung = judge().rung(
        outputs("graph", 0.0), outputs("compiled", 0.01), min_db=COMPILER_MIN_DB, min_agreement=0.97, blame="compiler"
    )
    assert rung.outcome == "pass"
    assert rung.blame == ""
    assert rung.agreement == 1.0
    assert rung.metric == 1.0
    assert rung.sqnr_db is not None
    assert 40 < rung.sqnr_db < 60


def test_numbers_that_are_off_blame_the_stage() -> None:
    rung = judge().rung(
        outputs("graph", 0.0), outputs("compiled", 3.0), min_db=COMPILER_MIN_DB, min_agreement=0.97, blame="compiler"
    )
    assert rung.outcome == "fail"
    assert rung.blame == "compiler"


def test_answers_that_change_and_get_worse_blame_the_stage_too() -> None:
    reference = outputs("graph", 0.0)
    swapped = reference.arrays[0].copy()
    swapped[:4] = swapped[:4][:, ::-1]
    rung = judge().rung(
        reference, Outputs("compiled", (swapped,)), min_db=-100, min_agreement=COMPILER_MIN_AGREEMENT, blame="decode"
    )
    assert rung.agreement is not None
    assert rung.agreement < 0.97
    assert rung.blame == "decode"


@pytest.mark.parametrize(("pictures", "changed", "blame"), [(20, 1, ""), (20, 2, "compiler"), (8, 1, "compiler")])
def test_one_picture_of_many_may_change_its_answer(pictures: int, changed: int, blame: str) -> None:
    """A YOLO-pose, 57 dB from its Q/DQ graph, lost a person at the threshold on one picture of twenty."""
    values = np.tile(np.array([1.0, 0.0, 0.0], dtype=np.float32), (pictures, 1))
    other = values.copy()
    other[:changed] = other[:changed, ::-1]
    spec = FamilySpec("classification", ("a", "b", "c"))
    judging = Judge(spec, InputContract((4, 4)), [0] * pictures, "top1")
    rung = judging.rung(
        Outputs("graph", (values,)), Outputs("compiled", (other,)), min_db=-100, min_agreement=0.97, blame="compiler"
    )
    assert rung.blame == blame


def test_where_weights_were_trained_between_only_the_answers_count() -> None:
    """QAT on labels made a network of 0.6 mIoU one of 0.9, and was called broken because its numbers had changed."""
    reference, trained = outputs("float torch", 0.0), outputs("Q/DQ torch", 0.0)
    far = Outputs(trained.name, tuple(array * 20 - 3 for array in trained.arrays))
    wrong = Outputs(trained.name, tuple(-array for array in trained.arrays))
    for other, min_db, blame in ((far, 5.0, "quantisation"), (far, None, ""), (wrong, None, "quantisation")):
        rung = judge().rung(reference, other, min_db=min_db, min_agreement=0.85, blame="quantisation")
        assert (rung.blame, rung.min_sqnr_db) == (blame, min_db)


def test_what_the_budget_allows_is_the_gates_to_judge() -> None:
    """A DETR within its point was called broken: its answers change on a picture in six, and it lost 0.4 points."""
    reference = outputs("graph", 0.0)
    swapped = reference.arrays[0].copy()
    swapped[:4] = swapped[:4][:, ::-1]
    lost = 1 - (judge().rung(reference, Outputs("b", (swapped,)), min_db=-100, min_agreement=0, blame="-").metric or 0)
    for allowed, blame in ((lost / 2, "quantisation"), (lost * 1.01, "")):
        rung = judge().rung(
            reference,
            Outputs("Q/DQ torch", (swapped,)),
            min_db=-100,
            min_agreement=0.97,
            blame="quantisation",
            max_drop=allowed,
        )
        assert rung.blame == blame


def rows_of_objects(head: str) -> tuple[Judge, Outputs]:
    """Three objects on two pictures as the rows of an end-to-end detector, and who judges them."""
    spec = FamilySpec("detection", ("a", "b"), head=head, score_threshold=0.2, max_detections=5)
    rows = np.array([[4, 4, 20, 20, 0.9, 0], [30, 8, 50, 40, 0.8, 1], [8, 30, 24, 60, 0.79, 0]], dtype=np.float32)
    truth = DetectionTruth(rows[:, :4], rows[:, 5].astype(np.int64), np.zeros(3, dtype=bool))
    judging = Judge(spec, InputContract((64, 64)), [truth, truth], "ap", pictures=[(64, 64)] * 2)
    return judging, Outputs("float torch", (np.stack([rows, rows]),))


def test_rows_that_the_network_sorts_may_change_places() -> None:
    pytest.importorskip("faster_coco_eval")
    judging, before = rows_of_objects("yolo-end2end")
    swapped = Outputs("int8", (before.arrays[0][:, [0, 2, 1]],))
    rung = judging.rung(before, swapped, min_db=COMPILER_MIN_DB, min_agreement=0.97, blame="compiler")
    assert rung.sqnr_db is not None
    assert rung.sqnr_db < COMPILER_MIN_DB
    assert (rung.outcome, rung.agreement, rung.min_sqnr_db) == ("pass", 1.0, None)
    moved = before.arrays[0].copy()
    moved[:, 1:, :4] += 12
    for wrong in (moved, np.where(moved > 55, np.float32(np.nan), moved)):
        rung = judging.rung(before, Outputs("int8", (wrong,)), min_db=5.0, min_agreement=0.97, blame="compiler")
        assert (rung.outcome, rung.blame) == ("fail", "compiler")


def test_faint_boxes_that_come_and_go_are_no_defect() -> None:
    """Of 300 pictures 12 get a faint box too many, and one lies a little off: AP falls by less than 0.002."""
    pytest.importorskip("faster_coco_eval")
    rows = rows_of_objects("yolo-end2end")[1].arrays[0][0]
    spec = FamilySpec("detection", ("a", "b"), head="yolo-end2end", score_threshold=0.01, max_detections=5)
    truth = DetectionTruth(rows[:, :4], rows[:, 5].astype(np.int64), np.zeros(3, dtype=bool))
    judging = Judge(spec, InputContract((64, 64)), [truth] * 300, "ap", pictures=[(64, 64)] * 300)
    before = np.zeros((300, 4, 6), dtype=np.float32)
    before[:, :3] = rows
    after = before.copy()
    after[:12, 3] = (44, 50, 60, 62, 0.02, 0)
    after[20, 1, :4] += (0.6, 0, 0.6, 0)
    forms = Outputs("Q/DQ torch", (before,)), Outputs("int8", (after,))
    rung = judging.rung(*forms, min_db=20.0, min_agreement=COMPILER_MIN_AGREEMENT, blame="compiler")
    assert rung.agreement is not None
    assert rung.agreement < COMPILER_MIN_AGREEMENT
    assert rung.metric is not None
    assert 0.998 < rung.metric < 1.0
    assert rung.outcome == "pass"
    after[20:32, 1, 4] = 0.0
    assert judging.rung(*forms, min_db=20.0, min_agreement=COMPILER_MIN_AGREEMENT, blame="compiler").blame == "compiler"


def test_not_a_number_breaks_the_rung() -> None:
    broken = outputs("graph", 0.0).arrays[0].copy()
    broken[0, 0] = np.nan
    rung = judge().rung(
        outputs("graph", 0.0), Outputs("compiled", (broken,)), min_db=20, min_agreement=0.9, blame="compiler"
    )
    assert rung.outcome == "fail"
    assert rung.agreement == 0.0


def test_other_numbers_of_samples_are_refused() -> None:
    short = Outputs("compiled", (np.zeros((3, 3), dtype=np.float32),))
    with pytest.raises(ArtifactError, match="3 samples"):
        judge().rung(outputs("graph", 0.0), short, min_db=0, min_agreement=0, blame="compiler")


def test_a_wrong_mean_is_blamed_on_preprocessing() -> None:
    inputs = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    assert preprocess_rung(inputs, inputs + 0.001).outcome == "pass"
    wrong = preprocess_rung(inputs, inputs - 0.4)
    assert (wrong.outcome, wrong.blame) == ("fail", "pre-processing")


def test_a_quantised_input_is_held_against_its_own_rounding() -> None:
    spec = TensorSpec("x", (1, 3, 8, 8), "int8", "NCHW", Quantization(1 / 16, 0))
    inputs = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    fed = spec.dequantize(spec.quantize(inputs))
    assert preprocess_rung(inputs, fed).outcome == "fail"
    assert preprocess_rung(inputs, fed, spec).sqnr_db == math.inf
    assert preprocess_rung(inputs, np.roll(fed, 1, axis=3), spec).outcome == "fail"


def test_causes_are_kept_only_where_a_rung_broke() -> None:
    good = judge().rung(outputs("a", 0), outputs("b", 0), min_db=20, min_agreement=0.9, blame="graph")
    bad = judge().rung(outputs("b", 0), outputs("c", 5), min_db=20, min_agreement=0.9, blame="quantisation")
    cause = Diagnosis("quantisation", "scale of 'x'", "2", "1")
    assert ladder([good], [cause]).diagnosis == ()
    assert ladder([good, bad], [cause]).diagnosis == (cause,)
    assert cause.text == "scale of 'x': found 2, expected 1"
    assert Diagnosis("compiler", "output 'y' has other values", "", "").text == "output 'y' has other values"


def test_the_ladder_names_the_first_that_broke() -> None:
    good = judge().rung(outputs("a", 0), outputs("b", 0), min_db=20, min_agreement=0.9, blame="graph")
    bad = judge().rung(outputs("b", 0), outputs("c", 5), min_db=20, min_agreement=0.9, blame="quantisation")
    worse = judge().rung(outputs("c", 0), outputs("d", 9), min_db=20, min_agreement=0.9, blame="compiler")
    assert ladder([good, bad, worse]).first_broken == "c (quantisation)"
    assert ladder([good, deferred_rung("device", "b")]).first_broken is None


def test_the_base_has_no_figures_but_the_metric() -> None:
    base = judge().base(outputs("float torch", 0.0))
    assert (base.sqnr_db, base.metric, base.outcome) == (None, 1.0, "not-checked")


def test_limits_are_looser_for_int8() -> None:
    assert compiler_limits("int8")[0] < compiler_limits("fp16")[0] < compiler_limits("fp32")[0]


def test_outputs_are_read_back_as_written(tmp_path: Path) -> None:
    forms = [outputs("float torch", 0.0), Outputs("two", (np.ones((2, 1)), np.zeros((2, 5), dtype=np.float32)))]
    save_outputs(tmp_path / "o.npz", forms, picked=np.arange(3))
    read, extra = load_outputs(tmp_path / "o.npz")
    assert list(read) == ["float torch", "two"]
    assert [array.shape for array in read["two"].arrays] == [(2, 1), (2, 5)]
    assert extra["picked"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip at all"])
def test_a_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="corrupt"):
        load_outputs(tmp_path / "o.npz")


def test_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", **{"x/0": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ArtifactError, match="corrupt"):
        load_outputs(tmp_path / "o.npz")
