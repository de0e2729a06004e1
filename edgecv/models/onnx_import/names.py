"""Module names from ONNX names: what the exporter left of the original names, as valid and unique paths."""

from __future__ import annotations

import re

from torch import nn

__all__ = ["Names", "layer_name", "path_of"]

_RESERVED = frozenset(dir(nn.Module())) | {"meta", "graph", "code"}
_INVENTED = re.compile(r"(^|::)[A-Za-z]*_?\d+$")
"""Names that exporters number: "643", "onnx::Conv_643", "Conv_0"."""
_KEY = re.compile(r"[./](weight|kernel|bias|gamma|weights)(:0)?$")


def layer_name(weight: str, node: str) -> str:
    """The path of a layer: that of its weight where it has one ("stem.conv.weight"), else of its node.

    Node names of torch ("/stem/conv/Conv") lose the operator at their end.
    """
    key = _KEY.search(weight)
    if key and not _INVENTED.search(weight):
        return path_of(weight[: key.start()])
    return path_of(node)


def path_of(name: str) -> str:
    """A dotted module path of ``name``; never empty."""
    if not name.startswith("/"):
        parts = [part for part in re.split(r"[./]+", name) if part]
    else:
        # torch writes scopes and the operator, and the names of parents again: "/stem/stem.0/conv/Conv"
        parts = []
        scopes = [part for part in name.split("/") if part]
        for scope in scopes[:-1] or scopes:
            inner = [part for part in scope.split(".") if part]
            while len(inner) > 1 and inner[0] in parts:
                inner = inner[1:]
            parts += inner
    clean = [re.sub(r"\W", "_", part) for part in parts] or ["layer"]
    return ".".join(f"{part}_" if part in _RESERVED else part for part in clean)


class Names:
    """Hands out paths that are unique, and of which none is both a layer and a folder of layers."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._folders: set[str] = set()

    def take(self, path: str) -> str:
        """``path``, or ``path_1`` and so on where it is taken."""
        folders, _, last = path.rpartition(".")
        path = f"{self._folder(folders)}.{last}" if folders else last
        wanted, number = path, 0
        while wanted in self._leaves or wanted in self._folders:
            number += 1
            wanted = f"{path}_{number}"
        self._leaves.add(wanted)
        parts = wanted.split(".")
        self._folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        return wanted

    def _folder(self, path: str) -> str:
        """``path`` with "_" behind each part that would be a layer."""
        found = ""
        for part in path.split("."):
            found = f"{found}.{part}" if found else part
            while found in self._leaves:
                found += "_"
        return found
