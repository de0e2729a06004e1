"""The CUDA runtime through ctypes. Copies run on a device only; here: it is found, and its errors are told."""

from __future__ import annotations

import ctypes

import pytest

from edgecv.backends import cudart
from edgecv.errors import ToolchainError


def library_or_skip() -> None:
    try:
        cudart.library()
    except ToolchainError:
        pytest.skip("no CUDA runtime library on this machine")


def has_gpu() -> bool:
    count = ctypes.c_int()
    return cudart.library().cudaGetDeviceCount(ctypes.byref(count)) == 0 and count.value > 0


def test_without_a_gpu_the_runtimes_own_words_are_told() -> None:
    library_or_skip()
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ToolchainError, match=r"cudaStreamCreate failed with \d+ \(.+\); check the GPU"):
        cudart.Stream()


def test_bytes_come_back_from_the_gpu() -> None:
    import numpy as np

    library_or_skip()
    if not has_gpu():
        pytest.skip("no GPU")
    stream, buffer = cudart.Stream(), cudart.Buffer(16)
    sent, got = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    buffer.copy(sent, cudart.TO_DEVICE, stream)
    buffer.copy(got, cudart.TO_HOST, stream)
    stream.wait()
    np.testing.assert_array_equal(got, sent)
    buffer.close()
    stream.close()


def test_a_missing_library_is_a_toolchain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudart.sys, "path", [])
    monkeypatch.setattr(cudart, "_NAMES", ("libno-such-cudart.so",))
    monkeypatch.setattr(cudart, "_SYSTEM", "/no/such/libcudart.so")
    with pytest.raises(ToolchainError, match="install CUDA"):
        cudart.library.__wrapped__()
