"""The quantize step of the build: calibration pictures in, the Q/DQ graph and its plan out."""

from __future__ import annotations
