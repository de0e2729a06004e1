from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecv.core.recipe import Quantize
from edgecv.errors import DataError, ToolchainError
from edgecv.optimize.examples import pictures
from edgecv.optimize.ptq import quantize_ptq
from edgecv.optimize.quantized import QuantizedGraph

from .quantize_nets import batches, example, images, residual, sqnr_db

pytestmark = pytest.mark.build

STEP = Quantize("ptq")
WIDEST = replace(STEP, ranges="minmax")


def quantise(module: nn.Module | None = None, *, step: Quantize = STEP, **options: Any) -> QuantizedGraph:
    options.setdefault("calibration", batches(images(16)))
    return quantize_ptq(module or residual(), example(), step=step, **options)


def run(program: Any, arrays: np.ndarray) -> np.ndarray:
    module = program.module()
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(array[None])).numpy() for array in arrays])


@pytest.fixture(scope="module")
def portable() -> QuantizedGraph:
    return quantise()


def test_the_int8_graph_stays_near_the_float_network(portable: QuantizedGraph) -> None:
    arrays = images(8, seed=3)
    with torch.no_grad():
        expected = residual()(torch.from_numpy(arrays)).numpy()
    assert sqnr_db(expected, run(portable.program, arrays)) > 20


def test_portable_has_zero_point_0_everywhere_also_behind_relu(portable: QuantizedGraph) -> None:
    """TensorRT takes nothing else, and NNCF would choose -128 behind a ReLU."""
    assert {record.zero_point for record in portable.plan} == {0}
    assert {record.kind for record in portable.plan} == {"activation", "weight"}


def test_affine_uses_the_whole_range_behind_relu(portable: QuantizedGraph) -> None:
    affine = {record.node: record for record in quantise(step=Quantize("ptq", scheme="affine")).plan}
    plain = {record.node: record for record in portable.plan}
    assert affine["mean_dim"].zero_point == -128
    assert affine["mean_dim"].scale_max < 0.6 * plain["mean_dim"].scale_max


def test_every_record_has_a_scale_and_a_reason(portable: QuantizedGraph) -> None:
    records = {record.node: record for record in portable.plan}
    assert re.fullmatch("input image; range by (mean-minmax|minmax|mse|percentile)", records["image"].why)
    assert records["stem.0.weight"].why == "one scale per output channel"
    assert records["stem.0.weight"].scale_min < records["stem.0.weight"].scale_max
    assert all(record.why for record in portable.plan)
    assert all(0 < record.scale_min <= record.scale_max for record in portable.plan)
    assert records["relu"].scale_max == records["relu_1"].scale_max


def test_kept_modules_are_recorded_as_float() -> None:
    made = quantise(step=Quantize("ptq", keep_float=("head",)))
    floats = [record for record in made.plan if record.kind == "float"]
    assert [(record.node, record.why, record.scale_max) for record in floats] == [
        ("linear", "kept float by 'head'", 0.0)
    ]


def test_the_program_is_unfolded_and_holds_no_private_metadata(portable: QuantizedGraph) -> None:
    operators = [str(node.target) for node in portable.program.graph.nodes]
    assert sum("quantize_per_channel" in name and "de" not in name.split(".")[1][:2] for name in operators) == 4
    for node in portable.program.graph.nodes:
        assert not {"stack_trace", "from_node"} & set(node.meta)


def test_same_input_same_graph(portable: QuantizedGraph) -> None:
    torch.manual_seed(99)
    again = quantise()
    assert again.plan == portable.plan
    arrays = images(4, seed=3)
    assert np.array_equal(run(again.program, arrays), run(portable.program, arrays))


def test_calibration_sets_the_input_scale() -> None:
    arrays = images(8)
    small = {record.node: record for record in quantise(calibration=batches(arrays * 0.1), step=WIDEST).plan}
    large = {record.node: record for record in quantise(calibration=batches(arrays), step=WIDEST).plan}
    assert large["image"].scale_max == pytest.approx(np.abs(arrays).max() / 127, rel=1e-3)
    assert small["image"].scale_max == pytest.approx(0.1 * large["image"].scale_max, rel=1e-3)


def test_only_the_asked_number_of_pictures_sets_the_ranges() -> None:
    arrays = images(8)
    arrays[4:] *= 50
    records = {record.node: record for record in quantise(calibration=batches(arrays), samples=4).plan}
    assert records["image"].scale_max < np.abs(arrays[:4]).max() / 126


def test_tensors_that_saturate_are_named() -> None:
    arrays = images(16)
    arrays[1:] *= 0.05  # the mean of the pictures' ranges is far below the first one's
    made = quantise(calibration=batches(arrays), step=Quantize("ptq", ranges="mean-minmax"))
    shares = {item.node: item.share for item in made.saturated}
    assert 0.001 < shares["image"] < 0.5
    assert not quantise(calibration=batches(arrays), step=WIDEST).saturated


def test_smooth_quant_and_no_bias_correction_work() -> None:
    arrays = images(8, seed=3)
    with torch.no_grad():
        expected = residual()(torch.from_numpy(arrays)).numpy()
    made = quantise(step=Quantize("ptq", smooth_quant=True, bias_correction=False))
    assert sqnr_db(expected, run(made.program, arrays)) > 15


def test_the_module_is_left_alone() -> None:
    module = residual()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    quantise(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_an_empty_or_unfit_calibration_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        quantise(calibration=lambda: iter(()))
    with pytest.raises(DataError, match=r"shape \(3, 32, 32\); the model takes \(3, 16, 16\)"):
        quantise(calibration=batches(images(4, size=32)))


def test_pictures_stream_one_at_a_time() -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield images(4), None

    stream = pictures(endless, limit=6, shape=(3, 16, 16))
    assert next(stream).shape == (1, 3, 16, 16)
    assert len(taken) == 1
    assert len(list(stream)) == 5
    assert len(taken) == 2


def test_what_nncf_refuses_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.optimize import ptq

    def refuse(*_: Any) -> Any:
        raise KeyError("no metatype")

    monkeypatch.setattr(ptq, "_run_nncf", refuse)
    with pytest.raises(ToolchainError, match=r"NNCF cannot quantise Residual .*no metatype.*keep_float"):
        quantise()


def test_nothing_is_printed(tmp_path: Path) -> None:
    code = (
        "from tests.optimize.quantize_nets import *\n"
        "from pathlib import Path\n"
        "from edgecv.core.recipe import Quantize\n"
        "from edgecv.optimize.ptq import quantize_ptq\n"
        "from edgecv.optimize.export import save_program\n"
        "made = quantize_ptq(residual(), example(), step=Quantize('ptq'), calibration=batches(images(4)),"
        f" log=Path({str(tmp_path / 'run.log')!r}))\n"
        f"save_program(made.program, Path({str(tmp_path / 'program.pt2')!r}))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert "nncf" in (tmp_path / "run.log").read_text().lower()
