"""The demo's detector: a small network for the synthetic camera, compiled for each engine.

Made by ``tools/train_demo_detector.py``.
"""

from __future__ import annotations

from pathlib import Path

ENGINES = ("onnxruntime", "openvino", "litert")


def artifact(engine: str) -> Path:
    """The folder of the artifact for ``engine``, one of `ENGINES`."""
    return Path(__file__).parent / engine
