"""SmoothQuant stays behind float values: what it multiplies behind int8 ones is taken out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecv import backends
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import Quantize
from edgecv.optimize.export import save_program, write_onnx
from edgecv.optimize.ptq import prepare_ptq, quantize_ptq
from edgecv.optimize.switches import make_board

from .quantize_nets import sqnr_db
from .test_engines_agree import target

STEP = Quantize("ptq", scheme="affine", ranges="minmax", smooth_quant=True)


class Mlp(nn.Module):
    """A norm and the two layers of a transformer's block; one channel between those is never awake."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        with torch.no_grad():
            self.up.bias[:8] = -50.0
            self.norm.weight[3] = 20.0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down(torch.relu(self.up(self.norm(tokens))))
        return found


def tokens(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(1, 12, 16)).astype(np.float32) for _ in range(count)]


def test_only_the_product_behind_the_norm_is_left_and_the_network_computes_the_same() -> None:
    module, given = Mlp().eval(), tokens(16)
    made = prepare_ptq(
        module, torch.from_numpy(given[0]), step=STEP, calibration=lambda: ((one, None) for one in given)
    )
    products = [node for node in made.graph.graph.nodes if str(node.target).endswith("nncf_smooth_quant")]
    assert [str(product.args[0]) for product in products] == ["layer_norm"]
    assert not [name for name in made.plan.why if "relu" in name and "smooth" in name]
    board = make_board(made.graph, made.originals)
    board.turn(())
    for one in tokens(4, seed=3):
        with torch.no_grad():
            wanted, found = module(torch.from_numpy(one)).numpy(), board.run(torch.from_numpy(one))[0].numpy()
        assert sqnr_db(wanted, found) > 80


@pytest.mark.build
def test_litert_gives_what_torch_does(tmp_path: Path) -> None:
    module, given = Mlp().eval(), tokens(16)
    made = quantize_ptq(
        module, torch.from_numpy(given[0]), step=STEP, calibration=lambda: ((one, None) for one in given)
    )
    save_program(made.program, tmp_path / "model.pt2")
    write_onnx(made.program, tmp_path / "model.onnx", log=tmp_path / "log")
    source = CompileSource("int8", tmp_path / "model.onnx", tmp_path / "model.pt2")
    backend = backends.get("litert")
    compiled = backend.compile(source, target=target("litert"), out=tmp_path, log=tmp_path / "log")
    engine = backend.load(tmp_path / compiled.model, options=compiled.options, threads=1)
    for one in tokens(4, seed=3):
        (raw,) = engine.run([engine.inputs[0].quantize(one)])
        how = engine.outputs[0].quantization
        found = raw if how is None else (raw.astype(np.float64) - how.zero_point) * how.scale
        with torch.no_grad():
            wanted = made.program.module()(torch.from_numpy(one)).numpy()
        assert sqnr_db(wanted, found) > 25
