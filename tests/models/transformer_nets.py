"""Small DETR and RT-DETR networks of transformers with random weights, away from what they start with."""

from __future__ import annotations

import re
import warnings
from typing import Any

HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
SIDES = {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "backbone_config": {"model_type": "resnet", **SIDES, "out_features": ["stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 12,
    **HEADS,
}
RT_DETR: dict[str, Any] = {
    "backbone_config": {"model_type": "rt_detr_resnet", **SIDES, "out_features": ["stage2", "stage3", "stage4"]},
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 32, 32],
    "decoder_in_channels": [32, 32, 32],
    "decoder_layers": 2,
    "num_queries": 12,
    "hidden_expansion": 0.5,
    **HEADS,
}
OPTIONS = {
    "DetrForObjectDetection": DETR,
    "RTDetrForObjectDetection": RT_DETR,
    "RTDetrV2ForObjectDetection": RT_DETR,
}


def tiny(name: str, **more: Any) -> Any:
    """The network in evaluation mode, for three labels; classes differ enough that queries have a clear order."""
    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of the libraries that transformers imports
        import transformers

        architecture = getattr(transformers, name)
        torch.manual_seed(0)
        network = architecture(architecture.config_class(**{**OPTIONS[name], "num_labels": 3, **more})).eval()
        with torch.no_grad():
            for part, weight in network.named_parameters():
                scale = 0.3 / max(weight.shape[-1], 1) ** 0.5 if weight.ndim > 1 else 0.1
                weight.add_(torch.randn_like(weight) * scale)
                if weight.ndim > 1 and any(word in part for word in ("class_embed", "score_head", "classifier")):
                    weight.mul_(6)
            for layer in network.modules():
                if "BatchNorm" in type(layer).__name__:
                    layer.running_var.uniform_(0.5, 1.5)
                    layer.weight.uniform_(0.5, 1.5)
    return network


def old_names(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict under the names that published files have."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"\.o_proj\.", ".out_proj.", name)
        name = re.sub(r"\.layers\.(\d+)\.mlp\.fc", r".layers.\1.fc", name)
        name = re.sub(r"encoder\.aifi\.(\d+)\.", r"encoder.encoder.\1.", name)
        if name.startswith("model.backbone.model.") and "class_labels_classifier.bias" in state:
            name = name.replace("model.backbone.", "model.backbone.conv_encoder.", 1)
        renamed[name] = value
    return renamed
