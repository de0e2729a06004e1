"""DETR and RT-DETR of transformers as plain graphs of fixed shapes: no padding masks, constant positions.

Layers, and so the names of the weights, are those of transformers; only the way through them is written here. Frozen
batch norms become ordinary ones, which pruning and folding know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgecv.errors import ModelError
from edgecv.models.deformable import DeformableAttention, is_one

__all__ = ["DETECTOR_CLASSES", "Staged", "Stages", "detector_graph", "published_names", "thaw"]

Stages = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Logits and boxes as each part of a network gives them, the answer last."""

OUTSIDE = 20.0
"""Stands for an infinite logit: its sigmoid is 1 in float32, and no int8 range is stretched by it."""


class Staged(nn.Module):
    """A network whose parts each give an answer: with ``every`` it gives all of them, as training wants."""


class DetrGraph(Staged):
    """DETR (N. Carion et al., arXiv:2005.12872): `(N, 3, H, W)` -> logits `(N, Q, C + 1)` and boxes `(N, Q, 4)`.

    The last class is "no object"; boxes are centre and size in shares of the picture's sides. With ``every`` it gives
    those of each layer of the decoder (`Stages`).
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = network.get_submodule("model")
        self.class_labels_classifier = network.get_submodule("class_labels_classifier")
        self.bbox_predictor = network.get_submodule("bbox_predictor")
        kind: str = network.config.position_embedding_type  # type: ignore[union-attr, assignment]
        if kind != "sine":
            raise ModelError(f"model.options.position_embedding_type is {kind!r}; only 'sine' goes to the engines")
        with torch.no_grad():
            shape = self.features(torch.zeros(1, 3, *size)).shape
            places = self.model.position_embedding(shape=shape, device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[operator]
        self.register_buffer("places", _rows(places).clone(), persistent=False)

    def adapt_state(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights under today's names (`published_names`)."""
        return published_names(state)

    def forward(self, inputs: torch.Tensor, *, every: bool = False) -> Any:
        return self.decoded(self.encoded(self.features(inputs)), every=every)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """The backbone's last map, `(N, C, h, w)`."""
        found: torch.Tensor = _maps(self.model.backbone.model, inputs)[-1]  # type: ignore[union-attr]
        return found

    def encoded(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's cells, `(N, h * w, D)`, from the backbone's map."""
        model: Any = self.model
        places: Any = self.places
        memory = _rows(model.input_projection(features))
        for layer in model.encoder.layers:
            memory = layer(memory, None, spatial_position_embeddings=places)
        return memory

    def decoded(self, memory: torch.Tensor, *, every: bool = False) -> Any:
        """What the queries answer, from the encoder's cells."""
        model: Any = self.model
        places: Any = self.places
        asked = model.query_position_embeddings.weight.unsqueeze(0).repeat(len(memory), 1, 1)
        found = torch.zeros_like(asked)
        stages = []
        for layer in model.decoder.layers:
            found = layer(found, None, places, asked, memory)
            stages.append(found)
        answers = tuple(self._answer(stage) for stage in (stages if every else stages[-1:]))
        return answers if every else answers[0]

    def _answer(self, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model.decoder.layernorm(found)  # type: ignore[operator, union-attr]
        return self.class_labels_classifier(found), self.bbox_predictor(found).sigmoid()


class RtDetrGraph(Staged):
    """RT-DETR (Y. Zhao et al., arXiv:2304.08069) and its version 2: `(N, 3, H, W)` -> logits `(N, Q, C)` and boxes.

    Logits are for a sigmoid; boxes `(N, Q, 4)` are centre and size in shares of the picture's sides. Queries are
    the best cells by class score; boxes are only computed for those. With ``every`` it gives the queries' own logits
    and boxes and those of each layer of the decoder (`Stages`), and no layer learns from the boxes behind it.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = network.get_submodule("model")
        model: Any = self.model
        with torch.no_grad():
            _, sources = self._sources(torch.zeros(1, 3, *size), positions=None)
        self.sizes = tuple((int(item.shape[2]), int(item.shape[3])) for item in sources)
        anchors, inside = _anchors(self.sizes)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        config: Any = network.config
        self.queries = min(int(config.num_queries), len(anchors))
        self.encoded = tuple(config.encode_proj_layers) if config.encoder_layers > 0 else ()
        for index, level in enumerate(self.encoded):
            layer = model.encoder.aifi[index]
            high, wide = self.sizes[level]
            given = layer.position_embedding(width=wide, height=high, device=torch.device("cpu"), dtype=torch.float32)
            self.register_buffer(f"places{index}", given.clone(), persistent=False)
        self.placed = config.eval_size is None
        for layer in model.decoder.layers:
            layer.encoder_attn = _deformable(layer.encoder_attn, self.sizes)

    def adapt_state(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights under today's names (`published_names`)."""
        return published_names(state)

    def forward(self, inputs: torch.Tensor, *, every: bool = False) -> Any:
        model: Any = self.model
        anchors: Any = self.anchors
        count = len(inputs)
        _, sources = self._sources(inputs, positions=self.encoded)
        memory = torch.cat([_rows(source) for source in sources], dim=1)
        cells, width = memory.shape[1:]
        seen = model.enc_output(memory * self.get_buffer("inside"))
        best = torch.topk(model.enc_score_head(seen).amax(-1), self.queries, dim=1).indices
        rows = best if is_one(count) else best + torch.arange(count, device=best.device).view(count, 1) * cells
        found = functional.embedding(rows.reshape(-1), seen.reshape(count * cells, width)).view(
            count, self.queries, width
        )
        start = functional.embedding(best.reshape(-1), anchors).view(count, self.queries, 4)
        boxes = torch.sigmoid(model.enc_bbox_head(found) + start)
        stages: list[tuple[torch.Tensor, torch.Tensor]] = []
        if every:
            # Which queries are picked is learned here alone; the decoder then starts from them as they are.
            stages.append((model.enc_score_head(found), boxes))
            found, boxes = found.detach(), boxes.detach()
        decoder = model.decoder
        for index, layer in enumerate(decoder.layers):
            found = layer(
                found,
                object_queries_position_embeddings=decoder.query_pos_head(boxes),
                reference_points=boxes,
                encoder_hidden_states=memory,
            )
            boxes = torch.sigmoid(decoder.bbox_embed[index](found) + _logit(boxes))
            if every:
                stages.append((decoder.class_embed[index](found), boxes))
                boxes = boxes.detach()
        return tuple(stages) if every else (decoder.class_embed[-1](found), boxes)

    def _sources(
        self, inputs: torch.Tensor, *, positions: tuple[int, ...] | None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The encoder's maps, finest first, as they are and as wide as the decoder; None: only their shapes count."""
        model: Any = self.model
        maps = [
            project(item)
            for project, item in zip(model.encoder_input_proj, _maps(model.backbone.model, inputs), strict=True)
        ]
        for index, level in enumerate(positions or ()):
            places = getattr(self, f"places{index}") if self.placed else None
            shape = maps[level].shape
            cells = _rows(maps[level])
            for layer in model.encoder.aifi[index].layers:
                cells = layer(cells, None, spatial_position_embeddings=places)
            maps[level] = cells.transpose(1, 2).reshape(shape)
        maps = _pyramid(model.encoder, maps)
        sources = [project(item) for project, item in zip(model.decoder_input_proj, maps, strict=False)]
        sources += [project(maps[-1]) for project in model.decoder_input_proj[len(maps) :]]
        return maps, sources


def _deformable(given: Any, maps: tuple[tuple[int, int], ...]) -> nn.Module:
    """The layers of transformers' deformable attention in ours, under the same names."""
    if getattr(given, "method", "default") != "default":
        raise ModelError(f"model.options.decoder_method is {given.method!r}; only 'default' goes to the engines")
    scale = float(getattr(given, "offset_scale", 0.5))  # version 1 has it as a number
    return DeformableAttention(given, maps=maps, heads=given.n_heads, points=given.n_points, scale=scale)


def _pyramid(encoder: Any, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The features' way down, from coarse to fine, and up again."""
    down = [maps[-1]]
    for index, (lateral, block) in enumerate(zip(encoder.lateral_convs, encoder.fpn_blocks, strict=True)):
        finer = maps[len(maps) - 2 - index]
        down[-1] = lateral(down[-1])
        wide = functional.interpolate(down[-1], size=finer.shape[2:], mode="nearest")
        down.append(block(torch.cat([wide, finer], dim=1)))
    down.reverse()
    up = [down[0]]
    for index, (shrink, block) in enumerate(zip(encoder.downsample_convs, encoder.pan_blocks, strict=True)):
        up.append(block(torch.cat([shrink(up[-1]), down[index + 1]], dim=1)))
    return up


def _anchors(maps: tuple[tuple[int, int], ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A box for every cell, as logits `(L, 4)` of centre and size, and `(1, L, 1)` 1 where it is not at the edge."""
    parts = []
    for level, (high, wide) in enumerate(maps):
        y, x = torch.meshgrid(torch.arange(high) + 0.5, torch.arange(wide) + 0.5, indexing="ij")
        side = torch.full((high, wide), 0.05 * 2.0**level)
        parts.append(torch.stack([x / wide, y / high, side, side], dim=-1).reshape(-1, 4))
    shares = torch.cat(parts)
    inside = ((shares > 0.01) & (shares < 0.99)).all(-1, keepdim=True)
    logits = torch.where(inside, torch.log(shares / (1 - shares)), torch.tensor(OUTSIDE))
    return logits, inside.unsqueeze(0).float()


def _logit(shares: torch.Tensor) -> torch.Tensor:
    """What a sigmoid made of it, for shares of at least 1e-5 from both ends."""
    return torch.log(shares.clamp_min(1e-5)) - torch.log((1 - shares).clamp_min(1e-5))


def _rows(maps: torch.Tensor) -> torch.Tensor:
    return maps.flatten(2).transpose(1, 2)


def _maps(backbone: Any, inputs: torch.Tensor) -> Any:
    found = backbone(inputs)
    return found.feature_maps if hasattr(found, "feature_maps") else found


_GRAPHS: dict[str, Callable[[nn.Module, tuple[int, int]], nn.Module]] = {
    "DetrForObjectDetection": DetrGraph,
    "RTDetrForObjectDetection": RtDetrGraph,
    "RTDetrV2ForObjectDetection": RtDetrGraph,
}
DETECTOR_CLASSES = tuple(_GRAPHS)
"""Detectors of transformers, by class, that go to the engines."""


def detector_graph(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """A detector of transformers (one of `DETECTOR_CLASSES`) as a graph for pictures of (height, width) ``size``.

    Raises:
        ModelError: a setting of the network cannot go to the engines.
    """
    thaw(network)
    network.eval()  # the new norms as well
    return _GRAPHS[type(network).__name__](network, size).eval()


def thaw(network: nn.Module) -> None:
    """Put ordinary batch norms in the place of frozen ones, with the same numbers, and let every layer learn.

    transformers freezes the first layers and the backbone's norms, and pruning follows the gradients' way.
    """
    network.requires_grad_(True)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("FrozenBatchNorm2d"):
                given: Any = child
                norm = nn.BatchNorm2d(len(given.weight), eps=1e-5)
                norm.load_state_dict(given.state_dict(), strict=False)
                setattr(module, name, norm)


_PUBLISHED = (
    (re.compile(r"\bbackbone\.conv_encoder\."), "backbone."),
    (re.compile(r"\.out_proj\."), ".o_proj."),
    (re.compile(r"\.layers\.(\d+)\.fc([12])\."), r".layers.\1.mlp.fc\2."),
    (re.compile(r"^(class_embed|bbox_embed)\."), r"model.decoder.\1."),
    (re.compile(r"\bencoder\.encoder\.(\d+)\.layers\."), r"encoder.aifi.\1.layers."),
)


def published_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of DETR and RT-DETR under today's names, from the names that their files had before transformers 5.

    Numbers that follow from the network's settings, which version 2 of RT-DETR stores, are left out.
    """
    renamed = {}
    for name, value in state.items():
        if name.endswith(".encoder_attn.n_points_scale"):
            continue
        for pattern, now in _PUBLISHED:
            name = pattern.sub(now, name)
        renamed[name] = value
    return renamed
