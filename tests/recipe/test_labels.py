from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from edgecv.recipe.labels import imagenet_labels, resolve_labels


def test_a_list_is_kept(tmp_path: Path) -> None:
    assert resolve_labels(["a", 3], base=tmp_path, env={}) == (["a", 3], None)


def test_a_text_file_has_one_name_a_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\r\n\r\n  big dog \nfør\n".encode())
    assert resolve_labels("labels.txt", base=tmp_path, env={}) == (["cat", "big dog", "før"], None)
    assert resolve_labels("${L}/labels.txt", base=Path("/"), env={"L": str(tmp_path)})[1] is None


@pytest.mark.parametrize(
    ("content", "words"), [(b"caf\xe9\n", "UTF-8"), (b"x\n" * 3_000_000, "more than"), (None, "no such file")]
)
def test_files_that_are_no_labels(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "l.txt").write_bytes(content)
    _, wrong = resolve_labels("l.txt", base=tmp_path, env={})
    assert wrong is not None
    assert words in wrong


def test_imagenet_names_are_a_thousand_different_ones() -> None:
    labels, wrong = resolve_labels("imagenet-1k", base=Path(), env={})
    assert wrong is None
    assert len(set(labels)) == len(labels) == 1000
    assert (labels[0], labels[207], labels[999]) == ("tench", "golden retriever", "toilet tissue")
    assert [labels[index] for index in (134, 517)] == ["crane (n02012849)", "crane (n03126707)"]
    assert [labels[index] for index in (638, 639)] == ["maillot", "maillot, tank suit"]


def test_imagenet_names_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet_labels.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    try:
        assert "pip install" in str(resolve_labels("imagenet-1k", base=Path(), env={})[1])
    finally:
        imagenet_labels.cache_clear()
