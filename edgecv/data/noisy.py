"""Clean pictures that are shown with noise on them: pairs for denoising from any folder, or from made-up scenes."""

from __future__ import annotations

import zlib

import numpy as np

from edgecv.core.protocols import Sample
from edgecv.core.recipe import DataSpec
from edgecv.data.derived import DerivedReader
from edgecv.data.readers import LabelledReader
from edgecv.vision.noise import add_noise

__all__ = ["DEFAULT_NOISE", "with_noise"]

DEFAULT_NOISE = 25.0
"""The usual test level of denoisers (Zhang et al., arXiv:1608.03981), in steps of 0..255."""


def with_noise(reader: LabelledReader, spec: DataSpec) -> LabelledReader:
    """``reader``'s pictures with noise, each with the clean one as its reference (uint8 `(H, W, 3)` BGR).

    ``spec.noise`` and ``spec.shot`` tell how strong it is (`edgecv.vision.noise.add_noise`); without either it is
    Gaussian with `DEFAULT_NOISE`. The noise follows from a picture's id alone, so a picture has the same one in every
    pass, on every machine and in every part of the set.
    """
    shot = spec.shot or 0.0
    sigma = spec.noise if spec.noise is not None else 0.0 if shot else DEFAULT_NOISE

    def sample(index: int) -> Sample:
        clean = reader[index]
        seed = zlib.crc32(clean.id.encode(errors="surrogateescape"))
        noisy = add_noise(clean.image, sigma=sigma, shot=shot, draws=np.random.default_rng(seed))
        return Sample(clean.id, noisy, clean.image)

    kinds = f"Gaussian of {sigma:g}" + (f", Poisson with {shot:g} steps an electron" if shot else "")
    note = f"the noise is made up ({kinds}); that of a camera may be of another kind"
    return DerivedReader(reader, sample, truths=("picture",) * len(reader), notes=(*reader.notes, note))
