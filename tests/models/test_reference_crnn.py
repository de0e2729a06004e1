"""CRNN: the names and shapes of the weights in wide use, and that it runs on an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgecv.models.reference_crnn import crnn


def test_names_and_shapes() -> None:
    network = crnn()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["cnn.conv0.weight"] == (64, 1, 3, 3)
    assert shapes["cnn.conv6.weight"] == (512, 512, 2, 2)
    assert shapes["cnn.batchnorm2.running_mean"] == (256,)
    assert shapes["rnn.0.rnn.weight_ih_l0_reverse"] == (1024, 512)
    assert shapes["rnn.0.embedding.weight"] == (256, 512)
    assert shapes["rnn.1.embedding.weight"] == (37, 512)
    assert sum(item.numel() for item in network.parameters()) == pytest.approx(8.3e6, rel=0.01)
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 1, 32, 100)).shape == (2, 26, 37)


@pytest.mark.build
def test_it_runs_on_onnx_runtime(tmp_path: Path) -> None:
    from edgecv import backends
    from edgecv.optimize.export import export_program, write_onnx

    torch.manual_seed(0)
    network = crnn(num_classes=11, hidden=16, width_share=0.125).eval()
    example = torch.randn(1, 1, 32, 64)
    program = export_program(network, example)
    write_onnx(program, tmp_path / "model.onnx")
    engine = backends.get("onnxruntime").load(tmp_path / "model.onnx", options={}, threads=1)
    found = engine.run([example.numpy()])[0]
    engine.close()
    with torch.no_grad():
        assert np.abs(found - network(example).numpy()).max() < 1e-4
