"""The loss of detectors with prior boxes: which priors learn what, and which negatives count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecv.core.recipe import FamilySpec
from edgecv.core.results import DetectionTruth
from edgecv.errors import ModelError
from edgecv.families.detection_ssd_loss import ssd_loss

torch = pytest.importorskip("torch")

SIZE = (100, 200)
OPTIONS = {"feature_maps": [[2, 2]], "scales": [0.5, 0.5], "aspect_ratios": [[]]}


def truth_of(*boxes: tuple[float, float, float, float], crowd: tuple[bool, ...] | None = None) -> DetectionTruth:
    marks = None if crowd is None else np.array(crowd)
    return DetectionTruth(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64), marks, size=SIZE)


def spec_of(*, background: bool = False, outputs: str = "logits") -> FamilySpec:
    labels = ("a", "b")
    return FamilySpec("detection", labels, head="ssd", background=background, outputs=outputs, options=OPTIONS)  # type: ignore[arg-type]


def test_priors_in_crowds_are_no_negatives() -> None:
    everywhere = truth_of((0, 0, 200, 100), crowd=(True,))
    assert ssd_loss(zeros(3), [everywhere], spec_of(background=True)).item() == pytest.approx(0.0, abs=1e-6)
    left = truth_of((0, 0, 100, 100), crowd=(True,))  # three negatives count where there is no positive
    assert ssd_loss(zeros(3), [left], spec_of(background=True)).item() == pytest.approx(3 * np.log(3), rel=1e-4)


def test_steps_place_the_priors() -> None:
    """Cells that do not fill the input are where the option ``steps`` puts them."""
    spec = spec_of(background=True)
    wider = FamilySpec("detection", spec.labels, head="ssd", background=True, options={**OPTIONS, "steps": [40]})
    truth = truth_of((0, 0, 100, 50))
    assert ssd_loss(zeros(3), [truth], wider).item() != pytest.approx(ssd_loss(zeros(3), [truth], spec).item())


def zeros(columns: int) -> list[Any]:
    return [torch.zeros(1, 8, 4, requires_grad=True), torch.zeros(1, 8, columns, requires_grad=True)]


def test_cross_entropy_and_hard_negatives_by_hand() -> None:
    # Two priors (of the same size) stand where the object is: 2 positives, 6 of the rest count; no offset is needed.
    truth = truth_of((0, 0, 100, 50))
    loss = ssd_loss(zeros(3), [truth], spec_of(background=True))
    assert loss.item() == pytest.approx((2 + 6) * np.log(3) / 2, rel=1e-4)
    loss = ssd_loss(zeros(2), [truth], spec_of())
    assert loss.item() == pytest.approx((2 + 6) * 2 * np.log(2) / 2, rel=1e-4)


def test_only_the_hardest_three_for_each_positive() -> None:
    outputs = [torch.zeros(1, 8, 4), torch.zeros(1, 8, 3)]
    outputs[1][0, :, 0] = 20.0  # sure of the background everywhere
    outputs[1][0, 7, 0] = 0.0
    alone = ssd_loss(outputs, [truth_of()], spec_of(background=True))
    assert alone.item() == pytest.approx(np.log(3), rel=1e-3)


def test_offsets_are_those_that_the_head_reads() -> None:
    outputs = zeros(3)
    truth = truth_of((10, 0, 110, 50))  # a tenth of the prior's width to the right
    before = ssd_loss(outputs, [truth], spec_of(background=True))
    with torch.no_grad():
        outputs[0][0, :2, 0] = 10 / 100 / 0.1
    assert ssd_loss(outputs, [truth], spec_of(background=True)).item() == pytest.approx(before.item() - 0.5, abs=1e-4)


def test_probabilities_and_outputs_in_the_other_order() -> None:
    truth = truth_of((0, 0, 100, 50))
    logits = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0))
    wanted = ssd_loss([torch.zeros(1, 8, 4), logits], [truth], spec_of(background=True))
    shares = ssd_loss(
        [logits.softmax(dim=2), torch.zeros(1, 8, 4)], [truth], spec_of(background=True, outputs="probabilities")
    )
    assert shares.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="6 boxes; the head's options make 8 priors"):
        ssd_loss([torch.zeros(1, 6, 4), torch.zeros(1, 6, 3)], [truth_of()], spec_of(background=True))
    with pytest.raises(ModelError, match="gave 1 outputs"):
        ssd_loss([torch.zeros(1, 6, 4)], [truth_of()], spec_of(background=True))
