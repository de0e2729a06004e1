"""`edgecv index`, and galleries in `edgecv run` and in the camera loop's second stage, on colours as identities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli, demo
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification, Detections
from edgecv.errors import UsageError
from edgecv.runtime.importer import import_model
from edgecv.runtime.second import open_second
from edgecv.runtime.spec import SecondStage, read_spec
from tests.runtime.conftest import CONTRACT, OUTPUT, null_file

COLORS = {"blue": (255, 20, 20), "green": (20, 255, 20), "red": (20, 20, 255)}


def picture(name: str, seed: int) -> np.ndarray:
    """A picture of one colour, a little different each time."""
    noise = np.random.default_rng(seed).integers(-20, 20, (12, 16, 3))
    return np.clip(np.array(COLORS[name]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact whose embedding is the mean colour."""
    family = FamilySpec("embedding", ("thing",))
    bare = null_file(tmp_path / "bare")
    return import_model(bare, out=tmp_path / "model", name="colors", family=family, contract=CONTRACT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Queries and a gallery of three colours."""
    for part, count in (("query", 2), ("gallery", 3)):
        for name in COLORS:
            place = tmp_path / "set" / part / name
            place.mkdir(parents=True)
            for index in range(count):
                cv2.imwrite(str(place / f"{index}.png"), picture(name, 10 * len(part) + index))
    return tmp_path / "set"


def test_eval_index_and_run(model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"identities:{folder}"
    assert cli.main(["eval", str(model), "--data", data, "--metric", "recall1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["value"], figures["samples"]) == (1.0, 6)
    out = tmp_path / "colors.npz"
    assert cli.main(["index", str(model), "--data", data, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"pictures": 9, "identities": 3, "numbers": 3, "out": str(out)}, "queries are not in it"
    cv2.imwrite(str(tmp_path / "seen.png"), picture("red", 99))
    assert cli.main(["run", str(model), str(tmp_path / "seen.png"), "--gallery", str(out), "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["classes"][0]
    assert best["label"] == "red"
    assert best["score"] > 0.99
    assert cli.main(["index", str(model), "--data", data, "--out", str(out)]) == 0
    assert "knows 3 identities by 9 pictures" in capsys.readouterr().out


def test_strangers_are_unknown(model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "colors.npz"
    words = ["index", str(model), "--data", f"identities:{folder}/gallery", "--out", str(out), "--known-from"]
    assert cli.main([*words, "auto", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recognised"] == 1.0
    assert 0 < told["known_from"] < 0.5, "what the most alike of the three colours have in common"
    assert cli.main([*words, "auto"]) == 0
    assert "100% are still recognised" in capsys.readouterr().out
    assert cli.main([*words, "0.9"]) == 0
    assert "unknown is who is below a cosine of 0.9" in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((12, 16, 3), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "red.png"), picture("red", 99))
    for name, shown in (("grey", "unknown"), ("red", "red")):
        assert cli.main(["run", str(model), str(tmp_path / f"{name}.png"), "--gallery", str(out), "--json"]) == 0
        best = json.loads(capsys.readouterr().out)["classes"][0]
        assert best["label"] == shown
        assert (best["score"] < 0.9) == (shown == "unknown")
    assert cli.main([*words, "2"]) == 2
    assert "--known-from is 2; allowed are auto and a cosine from -1 to 1" in capsys.readouterr().err


def test_the_second_stage_says_whom_it_sees(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "colors.npz"
    assert cli.main(["index", str(model), "--data", f"identities:{folder}", "--out", str(out)]) == 0
    scene = np.zeros((60, 120, 3), np.uint8)
    scene[10:50, 10:50], scene[10:50, 70:110] = COLORS["green"], COLORS["blue"]
    boxes = np.array([[12, 12, 48, 48], [72, 12, 108, 48]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), ("thing",))
    runner = open_second(SecondStage(str(model), gallery=str(out)), ("thing",), threads=1)
    try:
        seen = runner.apply(scene, found).second
    finally:
        runner.close()
    assert all(isinstance(answer, Classification) for answer in seen)
    assert [answer.brief() for answer in seen] == ["green", "blue"]


def test_a_folder_of_identities_is_a_gallery(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For pictures and in the loop; both say the nearest identity and its cosine."""
    place = tmp_path / "seen"
    place.mkdir()
    for index, name in enumerate(("red", "blue")):
        cv2.imwrite(str(place / f"{index}.png"), picture(name, 70 + index))
    known = str(folder / "gallery")
    assert cli.main(["run", str(model), str(place / "0.png"), "--gallery", known, "--save", str(tmp_path / "out")]) == 0
    assert ": red 1.000" in capsys.readouterr().out
    assert not np.array_equal(cv2.imread(str(tmp_path / "out/0.png")), cv2.imread(str(place / "0.png"))), "it is drawn"
    words = ["run", str(model), "--camera", str(place), "--gallery", known, "--json", "--quiet"]
    assert cli.main(words) == 0
    best = [json.loads(line)["classes"][0] for line in capsys.readouterr().out.splitlines()]
    assert [item["label"] for item in best] == ["red", "blue"]
    assert all(0.99 < item["score"] <= 1 for item in best)


def test_a_pipeline_of_embeddings_names_its_gallery(model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text(json.dumps({"model": "model", "gallery": "people.npz"}))
    spec = read_spec(tmp_path / "pipeline.json")
    assert spec.gallery == str(tmp_path / "people.npz")
    for wrong in (replace(spec, model=spec.model * 2), replace(spec, model=(), detect=spec.model)):
        with pytest.raises(UsageError, match="gallery goes with one model of embeddings"):
            wrong.check()


def test_a_gallery_of_another_model_is_refused(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "colors.npz"
    assert cli.main(["index", str(model), "--data", f"identities:{folder}", "--out", str(out)]) == 0
    bare = null_file(tmp_path / "other", output=replace(OUTPUT, name="z"))
    family = FamilySpec("embedding", ("thing",))
    other = import_model(bare, out=tmp_path / "twin", name="colors", family=family, contract=CONTRACT)
    with pytest.raises(UsageError, match="their embeddings cannot be compared"):
        open_second(SecondStage(str(other), gallery=str(out)), ("thing",), threads=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["index", "MODEL", "--data", "images:SET", "--out", "x.npz"], "names no identities"),
        (["index", "MODEL", "--data", "identities:SET", "--out", "/absent/x.npz"], "is no folder"),
        (["index", "DEMO", "--data", "identities:SET", "--out", "OUT"], "is a model for detection; a gallery needs"),
        (["run", "MODEL", "SET/query/red/0.png", "--gallery", "absent.npz"], "there is no gallery absent.npz"),
        (["run", "MODEL", "SET/query/red/0.png", "--gallery", "SET/query/red"], "images lie directly in it"),
        (["run", "MODEL", "--camera", "SET", "--gallery", "absent.npz"], "there is no gallery absent.npz"),
        (["run", "--model", "DEMO", "--camera", "SET", "--gallery", "SET"], "is a model for detection; a gallery"),
        (["run", "--detect", "DEMO", "--gallery", "x.npz"], "add --second DIR, or take --model"),
    ],
)
def test_wrong_words_end_with_2(
    model: Path, folder: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"MODEL": model, "SET": folder, "DEMO": demo.artifact("onnxruntime"), "OUT": tmp_path / "out.npz"}
    for key, value in names.items():
        words = [word.replace(key, str(value)) for word in words]
    assert cli.main(words) == 2
    assert says in capsys.readouterr().err


def test_queries_alone_are_no_gallery(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "list.csv").write_text("file,label,role\nquery/red/0.png,red,query\n")
    out = tmp_path / "colors.npz"
    assert cli.main(["index", str(model), "--data", f"identities-csv:{folder}/list.csv", "--out", str(out)]) == 2
    assert "all are queries" in capsys.readouterr().err
    assert not out.exists()


def test_a_pipeline_file_names_its_gallery(tmp_path: Path) -> None:
    text = {"detect": "a", "second": {"artifact": "b", "gallery": "people.npz"}}
    (tmp_path / "pipeline.json").write_text(json.dumps(text))
    second = read_spec(tmp_path / "pipeline.json").second
    assert second is not None
    assert second.gallery == str(tmp_path / "people.npz")
