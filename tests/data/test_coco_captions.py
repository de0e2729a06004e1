"""COCO captions: which pictures are picked by what is said of them, and what a broken file is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecv import cli
from edgecv.core.recipe import DataSpec
from edgecv.data.coco_captions import list_captions
from edgecv.data.readers import open_reader, spec_fingerprint
from edgecv.errors import DataError

from .conftest import encoded, picture

SAID = {
    7: ["A bus stands in a street.", "Red bus, wet road"],
    9: ["Busy people"],
    8: ["Two dogs on a sofa", "A DOG sleeps"],
}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    names = {7: "a.png", 9: "b.png", 8: "c.png"}
    for seed, name in enumerate(names.values()):
        (tmp_path / name).write_bytes(encoded(picture(seed)))
    notes = [(image, text) for image, texts in SAID.items() for text in texts]
    return {
        "images": [{"id": key, "file_name": name} for key, name in names.items()],
        "annotations": [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(notes)],
    }


def spec(**more: Any) -> DataSpec:
    return DataSpec("coco-captions", path="captions.json", **more)


def write(tables: dict[str, Any], folder: Path) -> None:
    (folder / "captions.json").write_text(json.dumps(tables))


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        (None, ["a.png", "b.png", "c.png"]),
        ("bus", ["a.png"]),  # and not Busy
        ("Dog", ["c.png"]),
        ("dog, ROAD", ["a.png", "c.png"]),
    ],
)
def test_words_pick_pictures(tables: dict[str, Any], tmp_path: Path, caption: str | None, names: list[str]) -> None:
    write(tables, tmp_path)
    listing = list_captions(spec(caption=caption), base=tmp_path)
    assert [item.id for item in listing.entries] == names
    assert listing.notes[0] == "5 captions of 3 pictures"
    reader = open_reader(spec(caption=caption), base=tmp_path, labels=())
    assert reader[0].truth is None
    assert reader[0].image.shape == (24, 32, 3)


def test_the_hash_knows_the_words(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    assert spec_fingerprint(spec(caption="bus"), base=tmp_path) != spec_fingerprint(spec(caption="dog"), base=tmp_path)


def test_words_that_nobody_says_are_told(tables: dict[str, Any], tmp_path: Path) -> None:
    write(tables, tmp_path)
    assert "no caption has ship" in list_captions(spec(caption="ship bus"), base=tmp_path).notes
    with pytest.raises(DataError, match=r"none of 3 pictures has a caption with ship; set caption to words"):
        list_captions(spec(caption="ship"), base=tmp_path)
    with pytest.raises(DataError, match=r"caption is '\.\.'; words are needed"):
        list_captions(spec(caption=".."), base=tmp_path)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "strange picture": ({"id": 9, "image_id": 1, "caption": "A cow"}, "image_id is 1, which is not among the images"),
    "no caption": ({"id": 9, "image_id": 7}, "caption is None; a sentence is needed"),
    "empty": ({"id": 9, "image_id": 7, "caption": " "}, "caption is ' '; a sentence is needed"),
    "double id": ({"id": 0, "image_id": 7, "caption": "A cow"}, r"has the id of annotations\[0\]; ids must differ"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_entries_are_named_by_their_place(tables: dict[str, Any], tmp_path: Path, case: str) -> None:
    entry, message = BROKEN[case]
    write({**tables, "annotations": [*tables["annotations"], entry]}, tmp_path)
    with pytest.raises(DataError, match=rf"captions\.json has 1 broken entries:\n  annotations\[5\].*{message}"):
        list_captions(spec(), base=tmp_path)


def test_boxes_are_no_captions(tables: dict[str, Any], tmp_path: Path) -> None:
    write({"images": tables["images"]}, tmp_path)
    with pytest.raises(DataError, match=r"no list of annotations; a COCO captions file with the lists images, ann"):
        list_captions(spec(), base=tmp_path)


def test_a_calibration_set_is_picked_by_captions(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COCO's own file, from the command line."""
    folder = shared_data / "coco-mini"
    (tmp_path / "street.yaml").write_text(f"""\
recipe: 1
name: street
model: {{source: "timm:resnet18", input: {{size: [32, 32]}}}}
family: {{kind: detection, head: yolox, labels: [person]}}
data:
  eval: {{kind: coco, path: "{folder}/instances.json", root: "{folder}/images", only: "*[02468].jpg"}}
  calibration:
    source: {{kind: coco-captions, path: "{folder}/captions.json", root: "{folder}/images",
      caption: man woman people person boy girl, only: "*[13579].jpg"}}
targets: [host-onnxruntime]
""")
    words = ["calibrate", str(tmp_path / "street.yaml"), "--samples", "8", "--select", "random"]
    assert cli.main([*words, "--out", str(tmp_path / "set.yaml")]) == 0, capsys.readouterr().err
    names = {entry["id"] for entry in yaml.safe_load((tmp_path / "set.yaml").read_text())["files"]}
    said = json.loads((folder / "captions.json").read_text())
    files = {image["id"]: image["file_name"] for image in said["images"]}
    of = {
        files[note["image_id"]]
        for note in said["annotations"]
        if {"man", "woman", "people", "person", "boy", "girl"}
        & set(note["caption"].lower().replace(".", " ").replace(",", " ").split())
    }
    assert names <= of
    assert len(names) == 8
