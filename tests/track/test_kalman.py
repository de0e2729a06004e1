"""The closed-form filters are the papers' matrix filters, at any time step."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.track.kalman import MODELS, XYSR, XYWH, XYXY, BoxModel, Noise, States


def boxes(count: int, seed: int = 0) -> np.ndarray:
    """Boxes in columns, `(4, count)`."""
    draws = np.random.default_rng(seed)
    low = draws.uniform(0, 500, (2, count))
    return np.concatenate([low, low + draws.uniform(20, 100, (2, count))])


@pytest.mark.parametrize("name", MODELS)
def test_boxes_survive_the_way_there_and_back(name: str) -> None:
    given = boxes(20)
    before = given.copy()
    np.testing.assert_allclose(MODELS[name].corners(MODELS[name].measure(given)), given, atol=1e-9)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("name", MODELS)
def test_no_size_below_nothing(name: str) -> None:
    numbers = np.array([[5.0], [5.0], [-3.0], [-2.0]])
    found = MODELS[name].corners(numbers)
    assert np.isfinite(found).all()
    assert (found[2:] >= found[:2]).all()


def matrix_filter(model: BoxModel, given: np.ndarray, seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The textbook filter with 8x8 matrices for one box."""
    motion = np.eye(8)
    motion[:4, 4:] = np.eye(4)
    look = np.eye(4, 8)

    def spread(noise: Noise, numbers: np.ndarray) -> np.ndarray:
        return np.diag(np.ravel(model.variance(noise, numbers.reshape(4, 1))))

    numbers = model.measure(given)[:, 0]
    mean, covariance = np.concatenate([numbers, np.zeros(4)]), spread(model.start, numbers)
    for box in seen:
        noise = spread(model.process, mean[:4])
        mean = motion @ mean
        covariance = motion @ covariance @ motion.T + noise
        gain = covariance @ look.T @ np.linalg.inv(look @ covariance @ look.T + spread(model.sensor, mean[:4]))
        mean = mean + gain @ (model.measure(box)[:, 0] - look @ mean)
        covariance = covariance - gain @ look @ covariance
    return mean, covariance


@pytest.mark.parametrize("name", MODELS)
def test_against_the_matrix_filter(name: str) -> None:
    model, start = MODELS[name], boxes(1)
    seen = [start + np.array([[3.0], [1.0], [4.0], [2.0]]) * step for step in range(1, 8)]
    states = States.of(model, start)
    for box in seen:
        states.predict(model, 1.0)
        states.update(model, box)
    mean, covariance = matrix_filter(model, start, seen)
    np.testing.assert_allclose(states.position[:, 0], mean[:4], rtol=1e-9)
    np.testing.assert_allclose(states.velocity[:, 0], mean[4:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(states.covariance[0, :, 0], np.diag(covariance)[:4], rtol=1e-9)
    np.testing.assert_allclose(states.covariance[1, :, 0], np.diag(covariance[:4, 4:]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(states.covariance[2, :, 0], np.diag(covariance)[4:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_tracks_without_a_measurement_stay_as_they_are(name: str) -> None:
    model, given = MODELS[name], boxes(5)
    some, one = States.of(model, given), States.of(model, given[:, 2:3])
    for states in (some, one):
        states.predict(model, 1.0)
    before = some.values.copy()
    measured = boxes(3, seed=1)
    some.update(model, measured, np.array([-1, -1, 1, -1, 0]))
    one.update(model, measured[:, 1:2])
    np.testing.assert_array_equal(some.values[:, :, [0, 1, 3]], before[:, :, [0, 1, 3]])
    np.testing.assert_allclose(some.values[:, :, 2], one.values[:, :, 0])


@pytest.mark.parametrize("name", MODELS)
def test_each_track_can_have_steps_of_its_own(name: str) -> None:
    model = MODELS[name]
    states = States.of(model, boxes(3))
    states.velocity[:] = 2.0
    for one in (0.0, 1.0, 2.5):
        alone = States(states.values.copy())
        alone.predict(model, one)
        together = States(states.values.copy())
        together.predict(model, np.array([0.0, one, 1.0]))
        np.testing.assert_allclose(together.values[:, :, 1], alone.values[:, :, 1])
        np.testing.assert_array_equal(together.values[:, :, 0], states.values[:, :, 0])


@pytest.mark.parametrize("name", MODELS)
def test_a_lost_box_keeps_its_size_and_goes_on(name: str) -> None:
    model = MODELS[name]
    states = States.of(model, boxes(2))
    for step in range(1, 6):
        states.predict(model, 1.0)
        states.update(model, boxes(2) + step * np.array([[4.0], [0.0], [12.0], [8.0]]))
    before = states.boxes(model)
    states.hold_size(model, np.array([True, False]))
    states.predict(model, 3.0)
    after = states.boxes(model)
    height = (after - before)[3] - (after - before)[1]
    assert (after[0] > before[0]).all()
    if model is not XYSR:  # its size is an area, of which the ratio of the sides is what can be held
        assert height[0] == pytest.approx(0.0, abs=1e-9)
        assert height[1] > 3


def test_tracks_come_and_go() -> None:
    states = States.empty()
    states.add(States.of(XYXY, boxes(4)))
    states.add(States.of(XYXY, boxes(2, seed=1)))
    states.keep(np.array([1, 5]))
    np.testing.assert_array_equal(states.boxes(XYXY), np.stack([boxes(4)[:, 1], boxes(2, seed=1)[:, 1]], axis=1))


def test_a_gap_is_so_many_single_steps() -> None:
    """XYSR's noise does not depend on the state, so the two ways must agree to the last digit but rounding."""
    once, often = States.of(XYSR, boxes(5)), States.of(XYSR, boxes(5))
    for states in (once, often):
        states.velocity[:] += np.array([[2.0], [-1.0], [30.0], [0.0]])
    once.predict(XYSR, 4.0)
    for _ in range(4):
        often.predict(XYSR, 1.0)
    np.testing.assert_allclose(once.position, often.position)
    np.testing.assert_allclose(once.covariance, often.covariance)


@pytest.mark.parametrize("model", [XYWH, XYXY])
def test_a_moved_camera_moves_the_boxes(model: BoxModel) -> None:
    states = States.of(model, boxes(3))
    before = states.boxes(model)
    states.velocity[0] = 5.0
    if model is XYXY:
        states.velocity[2] = 5.0
    turn = np.array([[0.0, -2.0, 7.0], [2.0, 0.0, -3.0]])  # a quarter turn, twice the size, a shift
    states.warp(turn, model)
    after = states.boxes(model)
    centre = (before[:2] + before[2:]) / 2
    np.testing.assert_allclose((after[:2] + after[2:]) / 2, turn[:, :2] @ centre + turn[:, 2:])
    np.testing.assert_allclose(after[2:] - after[:2], 2 * (before[2:] - before[:2]))
    np.testing.assert_allclose(states.velocity[:2], [[0.0] * 3, [10.0] * 3], atol=1e-9)
