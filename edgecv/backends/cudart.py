"""The few calls of the CUDA runtime that an engine's buffers need, through ctypes.

No Python package is needed on the board beyond TensorRT's own. Runs on the device only.
API: https://docs.nvidia.com/cuda/cuda-runtime-api/
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgecv.core.tensor import Array
from edgecv.errors import ToolchainError

TO_DEVICE, TO_HOST = 1, 2
_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_SYSTEM = "/usr/local/cuda/lib64/libcudart.so"
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaMalloc": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t),
    "cudaFree": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
    "cudaStreamCreate": (ctypes.POINTER(ctypes.c_void_p),),
    "cudaStreamDestroy": (ctypes.c_void_p,),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The CUDA runtime library of this machine.

    Raises:
        ToolchainError: there is none.
    """
    wheels = (path for folder in sys.path for path in Path(folder or ".").glob("nvidia/*/lib/libcudart.so.*"))
    for name in (*_NAMES, _SYSTEM, *map(str, wheels)):
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _SIGNATURES.items():
            getattr(found, function).argtypes = arguments
        found.cudaGetErrorString.restype = ctypes.c_char_p
        return found
    raise ToolchainError(f"the CUDA runtime ({_NAMES[0]}) is not on this machine; install CUDA, or run on the board")


def call(function: str, *arguments: Any) -> None:
    """Call one function of the runtime.

    Raises:
        ToolchainError: the runtime is missing, or the call failed.
    """
    code = getattr(library(), function)(*arguments)
    if code != 0:
        text = library().cudaGetErrorString(code).decode()
        raise ToolchainError(
            f"CUDA: {function} failed with {code} ({text}); check the GPU with nvidia-smi or tegrastats"
        )


class Stream:
    """A CUDA stream; copies and inferences are put on it in order."""

    def __init__(self) -> None:
        handle = ctypes.c_void_p()
        call("cudaStreamCreate", ctypes.byref(handle))
        self.handle = int(handle.value or 0)

    def wait(self) -> None:
        """Wait until everything on the stream is done."""
        call("cudaStreamSynchronize", ctypes.c_void_p(self.handle))

    def close(self) -> None:
        """Destroy the stream; twice does no harm."""
        if self.handle:
            call("cudaStreamDestroy", ctypes.c_void_p(self.handle))
            self.handle = 0


class Buffer:
    """A piece of GPU memory of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        pointer = ctypes.c_void_p()
        call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        self.size, self.address = size, int(pointer.value or 0)

    def copy(self, array: Array, direction: int, stream: Stream) -> None:
        """Copy between a contiguous ``array`` of the buffer's size and the GPU; returns at once."""
        host = ctypes.c_void_p(array.ctypes.data)
        device = ctypes.c_void_p(self.address)
        to, source = (device, host) if direction == TO_DEVICE else (host, device)
        call("cudaMemcpyAsync", to, source, ctypes.c_size_t(self.size), direction, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Free the memory; twice does no harm."""
        if self.address:
            call("cudaFree", ctypes.c_void_p(self.address))
            self.address = 0
