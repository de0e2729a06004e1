from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgecv.backends.program import fold_weights, load_program, seal
from edgecv.errors import ArtifactError

from .conftest import Export


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, edgecv.backends.program; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match=r"damaged\.pt2 is not a program of torch"):
        load_program(damaged)
    with pytest.raises(ArtifactError, match=r"gone\.pt2 is missing"):
        load_program(tmp_path / "gone.pt2")


def test_a_sealed_graph_has_the_shapes_of_its_inputs_and_no_trace_of_its_source() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()).eval()
    program = seal(module, (torch.rand(1, 3, 8, 8),))
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes if node.op == "call_function"]
    assert shapes == [(1, 2, 6, 6)] * 2
    assert not any({"stack_trace", "from_node"} & set(node.meta) for node in program.graph.nodes)


@pytest.mark.build
def test_folding_keeps_every_number_and_drops_the_float_weights(exports: dict[str, Export]) -> None:
    source = exports["int8"].source
    assert source.program is not None
    program = load_program(source.program)
    folded = fold_weights(program)
    picture = torch.from_numpy(exports["int8"].picture)
    with torch.no_grad():
        assert np.array_equal(folded.module()(picture).numpy(), program.module()(picture).numpy())
    large = [value for value in folded.state_dict.values() if value.numel() > 16]
    assert large
    assert {value.dtype for value in large} == {torch.int8}
    assert fold_weights(folded) is folded
