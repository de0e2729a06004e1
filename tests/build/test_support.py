"""The table of families and engines is what building shows: a small int8 network of every family, on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import backends, families
from edgecv.core.contract import InputContract
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.protocols import CompileSource
from edgecv.core.recipe import FamilySpec, Quantize
from edgecv.core.target import Target
from edgecv.families.support import ENGINES, SUPPORT
from edgecv.measure.subject import subject

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("support")]

SIZE = 32
CONTRACT = InputContract(size=(SIZE, SIZE))


@dataclass(frozen=True)
class Small:
    """A family's spec, and the tail that makes its outputs of `(1, 16, 8, 8)` features."""

    spec: FamilySpec
    tail: str


NETS = {
    "classification": Small(FamilySpec("classification", tuple("abcdef")), "vector 6"),
    "embedding": Small(FamilySpec("embedding", ("person",)), "vector 12"),
    "detection": Small(FamilySpec("detection", ("a", "b"), head="fastestdet", score_threshold=0.05), "cells 7"),
    "instance": Small(FamilySpec("instance", ("a", "b"), head="prototypes", score_threshold=0.05), "masks 2"),
    "pose": Small(FamilySpec("pose", ("person",), head="heatmap"), "planes 5"),
    "segmentation": Small(FamilySpec("segmentation", ("ground", "a", "b")), "planes 3"),
    "video": Small(FamilySpec("video", tuple("abcdef")), "vector 6"),
    "depth": Small(FamilySpec("depth", ("depth",)), "positive 1"),
    "text": Small(FamilySpec("text", (*"0123", "-"), head="ctc"), "columns 5"),
    "text-detection": Small(FamilySpec("text-detection", ("text",)), "planes 2"),
    "anomaly": Small(FamilySpec("anomaly", ("defect",)), "planes 1"),
    "restoration": Small(FamilySpec("restoration", ("picture",)), "picture 3"),
}


def masks(classes: int) -> Any:
    """Rows of boxes, scores and four coefficients, and four prototypes."""
    import torch
    from torch import nn

    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sides, self.classes = nn.Conv2d(16, 2, 1), nn.Conv2d(16, classes, 1)
            self.coefficients, self.prototypes = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)
            rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
            self.register_buffer("centres", torch.stack([columns, rows])[None] * 4.0 + 2.0)

        def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sizes = self.sides(features).sigmoid() + 3.0  # boxes do not meet: suppression would turn on a last bit
            parts = [self.centres, sizes, self.classes(features).sigmoid(), self.coefficients(features)]
            return torch.cat(parts, dim=1).flatten(2), self.prototypes(features)

    return Masks()


def network(small: Small) -> Any:
    """Two convolutions and the tail."""
    import torch
    from torch import nn

    kind, count = small.tail.split()
    outputs = int(count)
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    tails: dict[str, list[nn.Module]] = {
        "vector": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, outputs)],
        "cells": [nn.Conv2d(16, outputs, 1)],
        "masks": [masks(outputs)],
        "planes": [nn.Conv2d(16, outputs, 1)],
        "positive": [nn.Conv2d(16, outputs, 1), nn.ReLU()],
        "columns": [nn.Conv2d(16, outputs, 1), nn.AvgPool2d((8, 1)), nn.Flatten(2)],
        "picture": [nn.Conv2d(16, outputs * 16, 1), nn.PixelShuffle(4)],
    }
    module = nn.Sequential(*body, *tails[kind])
    with torch.no_grad():  # answers that differ with the picture, away from any threshold
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(2.5)
    return module.eval()


def pictures() -> Iterator[np.ndarray[Any, Any]]:
    """Coloured noise of several grains, `(32, 32, 3)` uint8."""
    import cv2

    for seed in range(12):
        grain = np.random.default_rng(seed).integers(0, 256, (4 + seed, 4 + seed, 3), dtype=np.uint8)
        yield cv2.resize(grain, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def shown(name: str, small: Small, folder: Path) -> dict[str, str]:
    """What each engine does with the int8 network of a family."""
    import torch

    from edgecv.optimize.distill import tensors_of
    from edgecv.optimize.export import save_program, write_onnx
    from edgecv.optimize.ptq import quantize_ptq
    from edgecv.vision.image import preprocess

    inputs = [preprocess(picture, CONTRACT)[None] for picture in pictures()]
    example = torch.from_numpy(inputs[0])
    made = quantize_ptq(
        network(small),
        example,
        step=Quantize("ptq", scheme="symmetric"),
        calibration=lambda: ((item, None) for item in inputs),
        samples=len(inputs),
    )
    save_program(made.program, folder / "model.pt2")
    write_onnx(made.program, folder / "model.onnx")
    graph = made.program.module()
    with torch.no_grad():
        wanted = [[part.numpy() for part in tensors_of(graph(torch.from_numpy(item)))] for item in inputs]
    found = {}
    for engine in ENGINES:
        out = folder / engine
        out.mkdir()
        target = Target(1, "test", "test", engine, "host", ("int8",), (), threads=1)  # type: ignore[arg-type]
        source = CompileSource("int8", folder / "model.onnx", folder / "model.pt2")
        compiled = backends.get(engine).compile(source, target=target, out=out, log=folder / "log.txt")
        if not compiled.runs_here:
            found[engine] = "deferred" if compiled.status == "deferred" else "compiles"
            continue
        loaded = backends.get(engine).load(out / compiled.model, options=compiled.options, threads=1)
        model = subject(loaded, spec=small.spec, contract=CONTRACT)
        assert families.problems(small.spec, CONTRACT, model.outputs) == []
        family, same = families.get(name), 0
        for picture, answer in zip(pictures(), wanted, strict=True):
            result = model.decode(model.run(picture, model.input_buffer()), picture=(SIZE, SIZE))
            same += family.agree(result, family.decode(answer, small.spec, CONTRACT, picture=(SIZE, SIZE)))
        loaded.close()
        assert same >= 11, f"{name} on {engine}: {same} of 12 answers are those of the quantised graph"
        found[engine] = "measured"
    return found


def test_every_family_is_in_the_table() -> None:
    assert set(NETS) == set(FAMILY_KINDS) == set(SUPPORT)


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_table_is_true(name: str, tmp_path: Path) -> None:
    assert shown(name, NETS[name], tmp_path) == SUPPORT[name]  # type: ignore[index]
