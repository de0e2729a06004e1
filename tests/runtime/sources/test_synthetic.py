"""The synthetic camera: its address, its clock, its truth."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgecv.errors import UsageError
from edgecv.runtime.sources import parse
from edgecv.runtime.sources.synthetic import SyntheticSource, synthetic_source


def source(text: str = "", **options: object) -> SyntheticSource:
    return synthetic_source(text, options)


def test_its_address_says_everything() -> None:
    camera = parse("synthetic:size=128x96,objects=3,fps=25,seed=7,frames=4")
    assert isinstance(camera, SyntheticSource)
    facts = camera.open()
    assert (facts.name, facts.size, facts.fps, facts.live, facts.frames) == ("synthetic", (96, 128), 25.0, False, 4)
    frames = [camera.read() for _ in range(5)]
    assert [None if frame is None else frame.index for frame in frames] == [0, 1, 2, 3, None]
    camera.close()
    camera.close()


def test_without_options_it_is_endless() -> None:
    camera = parse("synthetic:")
    assert camera.open().frames is None
    frame = camera.read()
    assert frame is not None
    assert frame.image.shape == (240, 320, 3)
    assert frame.source == "synthetic"


def test_options_can_stand_beside_the_address_which_goes_first() -> None:
    camera = parse("synthetic:seed=3", {"size": "64x48", "fps": 10, "seed": 1, "objects": 2})
    assert isinstance(camera, SyntheticSource)
    scene = camera.options.scene
    assert (scene.size, scene.fps, scene.seed, scene.objects) == ((48, 64), 10.0, 3, 2)


def test_its_truth_belongs_to_its_frames() -> None:
    camera = source("objects=4,seed=2")
    camera.open()
    for _ in range(5):
        frame = camera.read()
        assert frame is not None
        truth = camera.truth(frame.index)
        np.testing.assert_array_equal(frame.image, truth.image)
    assert len(camera.truth(200).boxes) > 0


def test_read_fast_a_frame_carries_the_time_of_the_scene() -> None:
    camera = source("fps=20,objects=1")
    camera.open()
    began_s = time.monotonic()
    frames = [camera.read() for _ in range(10)]
    assert time.monotonic() - began_s < 0.4  # ten frames of a real camera of 20 fps take 0.45 s
    times = [frame.time_s for frame in frames if frame is not None]
    np.testing.assert_allclose(np.diff(times), 0.05)
    taken = [frame.captured_s for frame in frames if frame is not None]
    assert taken == sorted(taken)
    assert began_s <= taken[0] <= taken[-1] <= time.monotonic()


def test_in_real_time_frames_come_at_their_rate() -> None:
    camera = source("fps=50,pace=realtime,objects=1,size=64x48")
    assert camera.open().live
    began_s = time.monotonic()
    frames = [camera.read() for _ in range(11)]
    assert time.monotonic() - began_s >= 0.19
    times = [frame.time_s for frame in frames if frame is not None]
    assert all(frame is not None and frame.media_s is None for frame in frames)
    np.testing.assert_allclose(np.diff(times), 0.02, atol=0.005)


def test_a_slow_reader_of_a_real_time_camera_gets_the_time_when_a_frame_was_due() -> None:
    camera = source("fps=100,pace=realtime,objects=1,size=64x48")
    camera.open()
    first = camera.read()
    time.sleep(0.1)
    second = camera.read()
    assert first is not None
    assert second is not None
    assert second.captured_s - first.captured_s == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize(
    "text",
    [
        "size=640",
        "size=10x10",
        "size=9999x9999",
        "size=-64x48",
        "objects=201",
        "objects=-1",
        "objects=many",
        "seed=-1",
        "fps=0",
        "fps=1001",
        "fps=nan",
        "frames=0",
        "pace=slow",
        "colour=red",
        "realtime",
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: size=WIDTHxHEIGHT") as caught:
        source(text)
    assert text.partition("=")[0] in str(caught.value)


def test_opened_again_it_goes_on_without_waiting_for_the_frames_before() -> None:
    camera = source("fps=10,pace=realtime,objects=1,size=64x48")
    camera.open()
    for _ in range(4):
        camera.read()
    camera.close()
    camera.open()
    began_s = time.monotonic()
    frame = camera.read()
    assert frame is not None
    assert frame.index == 4
    assert time.monotonic() - began_s < 0.1
    assert frame.captured_s >= began_s


def test_a_size_may_be_a_list_as_in_a_pipeline_file() -> None:
    assert source(size=[64, 48]).options.scene.size == (48, 64)


@pytest.mark.parametrize("text", ["objects=2.7", "seed=1.5", "frames=9.9"])
def test_a_count_is_a_whole_number(text: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        source(text)
