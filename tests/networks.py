"""Networks that several tests make small."""

from __future__ import annotations

from typing import Any

SMALL_DPT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 8, 16, 16],
    "fusion_hidden_size": 16,
    "is_hybrid": False,
}
"""Of transformers' DPTForDepthEstimation, for pictures of 64 x 64."""
