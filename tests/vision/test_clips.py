"""Clips as network inputs: every layout holds the same frames, and which frames a clip has follows from time."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.core.contract import Clip, InputContract
from edgecv.core.tensor import Array, Layout, Quantization, TensorSpec
from edgecv.errors import DataError
from edgecv.vision.clips import ClipWindow, Moment, StreamPace, middle, pick_times, picture_size, stacked, unstacked
from edgecv.vision.image import input_problems, input_shape, input_spec, preprocess
from edgecv.vision.preprocessor import Preprocessor

CLIP = Clip(frames=4, fps=8.0)
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "NTCHW", "NCTHW", "NTHWC")


def noise(frames: int = 4) -> Array:
    return np.random.default_rng(0).integers(0, 256, (frames, 30, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_each_frame_as_its_picture_is_prepared(color: str, layout: Layout) -> None:
    many = (0.1, 0.2, 0.3) if color == "rgb" else (0.2,)
    contract = InputContract(
        size=(16, 20),
        color=color,
        mean=many,
        std=tuple(1.0 for _ in many),
        resize="letterbox",
        clip=CLIP,  # type: ignore[arg-type]
    )
    frames = [preprocess(frame, contract.still) for frame in noise()]
    wanted = np.concatenate(frames)
    assert wanted.shape == (contract.planes, 16, 20)
    assert np.array_equal(preprocess(noise(), contract), wanted)
    spec = input_spec(contract, layout=layout)
    assert input_problems(contract, (spec,)) == []
    buffer = np.zeros(spec.shape, np.float32)
    Preprocessor(contract, spec).into(noise(), buffer)
    assert np.array_equal(stacked(buffer, layout)[0], wanted)
    assert np.array_equal(unstacked(wanted[None], layout, CLIP.frames), buffer)


def test_int8_clips_are_their_quantised_values() -> None:
    contract = InputContract(size=(8, 8), clip=CLIP)
    spec = TensorSpec("x", input_shape(contract, "NHWC"), "int8", "NHWC", Quantization(1 / 255, -128))
    buffer = np.zeros(spec.shape, np.int8)
    Preprocessor(contract, spec).into(noise(), buffer)
    real = preprocess(noise(), contract, layout="NHWC")
    assert np.array_equal(buffer[0], spec.quantize(real))


def test_a_picture_is_no_clip_and_a_clip_no_picture() -> None:
    contract = InputContract(size=(8, 8), clip=CLIP)
    for wrong in (noise()[0], noise(3), noise().astype(np.float32)):
        with pytest.raises(DataError, match=r"4, H, W, 3"):
            preprocess(wrong, contract)
        with pytest.raises(DataError, match="clip"):
            Preprocessor(contract, input_spec(contract)).into(wrong, np.zeros((1, 12, 8, 8), np.float32))
    with pytest.raises(DataError, match="picture"):
        preprocess(noise(), contract.still)
    assert "clip of 4 frames" in input_problems(contract, (input_spec(contract.still),))[0]


def test_the_size_and_the_middle_of_a_clip() -> None:
    assert picture_size(noise()) == picture_size(noise()[0]) == (30, 50)
    assert np.array_equal(middle(noise()), noise()[2])
    assert np.array_equal(middle(noise()[0]), noise()[0])


@pytest.mark.parametrize(
    ("clip", "words"), [(Clip(1, 8.0), "1 frames"), (Clip(400, 8.0), "400"), (Clip(8, 0.0), "0 fps")]
)
def test_clips_that_cannot_be_are_named(clip: Clip, words: str) -> None:
    found = InputContract(size=(8, 8), clip=clip).problems()
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("fps", "wanted"),
    [
        (8.0, [6, 7, 8, 9]),  # every frame
        (16.0, [3, 5, 7, 9]),  # every second one
        (30.0, [0, 1, 5, 9]),  # the nearest, of two the earlier; 0.375 s back is before the first
        (4.0, [7, 8, 8, 9]),  # a slow camera: frames are shown again
    ],
)
def test_frames_are_picked_by_their_time(fps: float, wanted: list[int]) -> None:
    times = [number / fps for number in range(10)]
    assert pick_times(times, CLIP, last_s=times[-1]) == wanted


def test_one_frame_is_a_whole_clip_at_first() -> None:
    assert pick_times([3.0], CLIP, last_s=3.0) == [0, 0, 0, 0]


def window_of(fps: float, count: int, *, skip: tuple[int, ...] = ()) -> tuple[ClipWindow, list[float], list[int]]:
    """A window that saw ``count`` gray frames of level = number; for each frame the clip's newest levels and counts."""
    contract = InputContract(size=(4, 4), color="gray", mean=(0.0,), std=(1.0,), range=(0.0, 255.0), clip=CLIP)
    one = input_spec(contract.still)
    window = ClipWindow(CLIP, one, Preprocessor(contract.still, one).into)
    out = np.zeros((1, 4, 4, 4), np.float32)
    held = []
    for number in range(count):
        if number not in skip:
            window.add(np.full((6, 6), number, np.uint8), number / fps)
            held.append(len(window._kept))
    window.write(out, "NCHW")
    return window, [float(value) for value in out[0, :, 0, 0]], held


def test_the_window_gives_the_frames_that_a_video_would() -> None:
    for fps in (8.0, 16.0, 24.0):
        _, levels, _ = window_of(fps, 40)
        wanted = [39 - round((3 - place) * fps / 8.0) for place in range(4)]
        assert np.abs(np.array(levels) - wanted).max() <= 1, fps
        assert levels[-1] == 39


def test_the_window_does_not_grow_with_the_rate_of_the_camera() -> None:
    for fps in (8.0, 30.0, 240.0):
        _, _, held = window_of(fps, 200)
        assert max(held) <= 4 * CLIP.frames + 3, fps


def test_dropped_frames_do_not_shift_the_clip() -> None:
    _, levels, _ = window_of(8.0, 20, skip=(17,))
    assert levels == [16, 16, 18, 19]  # 17 is missing: the earlier of its neighbours stands for it


def test_after_a_loss_or_a_jump_back_nothing_old_is_shown() -> None:
    for later_s in (9.0, 0.0):
        window, _, _ = window_of(8.0, 20)
        window.add(np.full((6, 6), 200, np.uint8), later_s)
        out = np.zeros((1, 4, 4, 4), np.float32)
        assert window.write(out, "NCHW") == 0.0
        assert (out == 200).all()


def test_a_broken_frame_leaves_the_window_as_it_was() -> None:
    window, levels, _ = window_of(8.0, 20)
    with pytest.raises(DataError):
        window.add(np.zeros((0, 4), np.uint8), 20 / 8.0)
    out = np.zeros((1, 4, 4, 4), np.float32)
    assert window.write(out, "NCHW") == pytest.approx(CLIP.span_s)
    assert [float(value) for value in out[0, :, 0, 0]] == levels
    window.clear()
    with pytest.raises(DataError, match="no frame"):
        window.write(out, "NCHW")


def paced(times_s: list[float]) -> list[Moment]:
    pace = StreamPace(Clip(frames=5, fps=8.0, stream=True))
    return [pace.see(time_s) for time_s in times_s]


def test_each_frame_of_the_trained_rate_counts_once() -> None:
    late_s = np.random.default_rng(0).uniform(-0.02, 0.02, 40)
    found = paced([10 + number / 8 + late_s[number] for number in range(40)])
    assert [item.times for item in found] == [1] * 40
    assert [item.anew for item in found] == [True] + [False] * 39
    assert found[0].seconds == 0.0
    assert found[2].seconds == pytest.approx(0.25, abs=0.05)
    assert found[39].seconds == 0.5  # the span of the clip


@pytest.mark.parametrize("fps", [5, 12, 15, 25, 30, 60])
def test_a_camera_of_another_rate_counts_as_many_frames(fps: float) -> None:
    found = paced([number / fps for number in range(round(fps * 20))])
    assert sum(item.times for item in found) == pytest.approx(160, abs=1)
    assert sum(item.anew for item in found) == 1
    assert max(item.times for item in found) == (2 if fps < 8 else 1)


def test_frames_that_are_missing_are_stood_for() -> None:
    assert [item.times for item in paced([0.0, 0.125, 0.5, 0.625])] == [1, 1, 3, 1]


@pytest.mark.parametrize("after", [0.75, 5.0, -3.0])
def test_after_a_loss_or_a_jump_back_a_network_begins_anew(after: float) -> None:
    found = paced([10.0, 10.125, 10.125 + after, 10.25 + after])
    assert [item.anew for item in found] == [True, False, True, False]
    assert [item.times for item in found] == [1, 1, 1, 1]
    assert found[2].seconds == 0.0
