"""Pruning of networks with attention heads and embedding tables, up to the exported file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec, Prune
from edgecv.optimize.export import export_program, write_onnx
from edgecv.optimize.prune import PruneResult, example_input, load_module_state, prune, replay, save_module_state

CONTRACT = InputContract(size=(16, 16))
FAMILY = FamilySpec(kind="classification", labels=tuple("abcd"))
WIDTH, HEADS, TOKENS = 32, 4, 16


class Block(nn.Module):
    """Attention and the two linear layers after it; ``fused`` makes queries, keys and values in one layer."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        names = {"qkv": 3} if fused else dict.fromkeys(("ask", "tell", "give"), 1)
        self.makers = nn.ModuleDict({name: nn.Linear(WIDTH, parts * WIDTH) for name, parts in names.items()})
        self.proj, self.up, self.down = (nn.Linear(*ends) for ends in ((WIDTH, WIDTH), (WIDTH, 64), (64, WIDTH)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        made = torch.cat([maker(self.first(tokens)) for maker in self.makers.values()], dim=-1)
        batch, count, _ = tokens.shape
        query, key, value = made.reshape(batch, count, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, count, WIDTH)
        tokens = tokens + self.proj(mixed)
        return tokens + self.down(functional.gelu(self.up(self.second(tokens))))


class Vit(nn.Module):
    """A transformer over 16 patches; the places are a table of nn.Embedding or a parameter."""

    def __init__(self, *, fused: bool = True, table: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.table = nn.Embedding(TOKENS, WIDTH) if table else None
        self.places = None if table else nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.register_buffer("order", torch.arange(TOKENS))
        self.blocks = nn.Sequential(Block(fused), Block(fused))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        tokens = tokens + (self.places if self.table is None else self.table(self.order))
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


class Looked(nn.Module):
    """Convolutions with a learned row of an embedding table added to every place: all of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 16, 3, 2, 1)
        self.table, self.head = nn.Embedding(64, 24), nn.Linear(16, 4)
        self.register_buffer("order", torch.arange(64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.one(inputs))
        rows = self.table(self.order).transpose(0, 1).reshape(1, -1, 8, 8)
        return self.head(functional.relu(self.two(features + rows)).mean(dim=(2, 3)))


def batches() -> Iterator[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    for _ in range(2):
        yield random.normal(size=(8, 3, 16, 16)).astype(np.float32), np.zeros(8, dtype=np.int64)


def cut(module: nn.Module, step: Prune) -> PruneResult:
    return prune(module, step=step, contract=CONTRACT, family=FAMILY, batches=batches)


def exported_says_the_same(module: nn.Module, folder: Path) -> None:
    import onnxruntime

    path = folder / "model.onnx"
    write_onnx(export_program(module, example_input(CONTRACT)), path)
    inputs = np.random.default_rng(3).normal(size=(1, 3, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, module(torch.from_numpy(inputs)).numpy(), atol=1e-4)


@pytest.mark.parametrize(("fused", "table"), [(True, True), (False, True), (True, False)])
def test_heads_stay_whole_and_the_exported_file_is_right(fused: bool, table: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make = lambda: Vit(fused=fused, table=table).eval()  # noqa: E731 - twice the same
    result = cut(make(), Prune(speedup=1.2))
    assert result.speedup >= 1.2
    for block in result.module.blocks:  # type: ignore[union-attr]
        made = sum(maker.out_features for maker in block.makers.values())
        # The forward above splits by these very numbers: another width would be another network.
        assert (made, block.proj.in_features) == (3 * WIDTH, WIDTH)
    assert any(block.up.out_features < 64 for block in result.module.blocks)  # type: ignore[union-attr]
    save_module_state(tmp_path / "state.safetensors", result.module)
    again = replay(make(), example_input(CONTRACT), result.history)
    load_module_state(tmp_path / "state.safetensors", again)
    exported_says_the_same(again, tmp_path)


def test_an_embedding_table_is_cut_with_what_it_is_added_to(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Looked().eval()
    with torch.no_grad():  # nobody reads these channels, so they are the ones to go
        module.two.weight[:, 8:16] = 0.0
    result = cut(module, Prune(ratio=1 / 3, scope="uniform", protect=("two",)))
    table = result.module.table
    assert isinstance(table, nn.Embedding)
    assert result.layers["one"] == (24, 16)
    assert tuple(table.weight.shape) == (64, 16)
    inputs = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(result.module(inputs), module(inputs), atol=1e-3)
    exported_says_the_same(result.module, tmp_path)
