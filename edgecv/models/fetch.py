"""Getting a weights file: a path, or a download that is only kept when its hash is right."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from edgecv.core.artifact import sha256_file
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.recipe import Weights
from edgecv.errors import ArtifactError, ModelError, ToolchainError

__all__ = ["fetch_weights"]

_ATTEMPTS = 5
_PIECE = 1 << 18
_TIMEOUT_S = 30.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def fetch_weights(
    weights: Weights,
    *,
    base: Path,
    cache: Path,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The file of ``weights``: below ``base``, or downloaded once to ``cache/<sha256>``.

    A download goes on where it was cut and is tried five times with growing pauses (``sleep`` takes
    seconds). It appears in the cache in one step, and only with the right hash.

    Raises:
        ModelError: there is no such file or address, or a URL without sha256.
        ToolchainError: the server cannot be reached, or stays out of order.
        ArtifactError: the file's hash is not the declared one; nothing of it is kept.
    """
    if weights.url is None:
        return _local(weights, base)
    if weights.sha256 is None:
        raise ModelError(f"model.weights.url is {weights.url}; it needs model.weights.sha256, the hash of the file")
    scheme = urllib.parse.urlsplit(weights.url).scheme
    if scheme not in ("http", "https"):
        raise ModelError(f"model.weights.url is {weights.url!r}; allowed are http and https")
    target = cache / weights.sha256
    if target.is_file() and sha256_file(target) == weights.sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f"{weights.sha256}.{os.getpid()}.partial"
    try:
        _download(weights.url, partial, progress or SilentProgress(), sleep)
        found = sha256_file(partial)
        if found != weights.sha256:
            raise ArtifactError(
                f"{weights.url} has sha256 {found}, the recipe says {weights.sha256}. The file was not kept: "
                "it was changed at its source, or the recipe's hash is wrong."
            )
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _local(weights: Weights, base: Path) -> Path:
    if not weights.path:
        raise ModelError("model.weights needs a path or a url")
    path = base / weights.path
    if not path.is_file():
        raise ModelError(f"model.weights.path: there is no file {path}; paths are relative to the recipe")
    if weights.sha256 is not None and (found := sha256_file(path)) != weights.sha256:
        raise ArtifactError(f"{path} has sha256 {found}, the recipe says {weights.sha256}; get the right file")
    return path


def _download(url: str, partial: Path, progress: Progress, sleep: Callable[[float], None]) -> None:
    trouble: object = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(0.5 * 2.0**attempt)
        try:
            trouble = _receive(url, partial, progress)
        except urllib.error.HTTPError as error:
            trouble = f"status {error.code}"
            error.close()
            if error.code == 416:
                # The part that is here does not fit the file there any more.
                partial.unlink(missing_ok=True)
            elif error.code not in _RETRY_STATUS:
                raise ModelError(f"{url} answered {error.code} {error.reason}; check model.weights.url") from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            trouble = error
        if trouble is None:
            return
    raise ToolchainError(
        f"{url} could not be downloaded in {_ATTEMPTS} attempts ({trouble}); check the network, or put the file "
        "beside the recipe and name it under model.weights.path."
    )


def _receive(url: str, partial: Path, progress: Progress) -> str | None:
    """One attempt, from where the last one stopped; None when the file is whole, else what was wrong."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        name = urllib.parse.urlsplit(url).path.rpartition("/")[2] or "weights"
        with partial.open("ab" if have else "wb") as stream, progress.task(f"download {name}", total) as task:
            task.advance(have)
            while piece := answer.read(_PIECE):
                stream.write(piece)
                task.advance(len(piece))
    received = partial.stat().st_size
    return None if total is None or received == total else f"{received} of {total} bytes came"
