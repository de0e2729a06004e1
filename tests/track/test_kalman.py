"""The closed-form filters are the papers' matrix filters, at any time step."""

from __future__ import annotations

import numpy as np
import pytest

from edgecv.track.kalman import XYAH, XYSR, XYWH, BoxModel, States

MODELS = {"xyah": XYAH, "xywh": XYWH, "xysr": XYSR}


def boxes(count: int, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    low = draws.uniform(0, 500, (count, 2))
    return np.concatenate([low, low + draws.uniform(20, 100, (count, 2))], axis=1)


@pytest.mark.parametrize("name", MODELS)
def test_boxes_survive_the_way_there_and_back(name: str) -> None:
    given = boxes(20)
    np.testing.assert_allclose(MODELS[name].corners(MODELS[name].measure(given)), given, atol=1e-9)


def matrix_filter(model: BoxModel, given: np.ndarray, seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The textbook filter with 8x8 matrices for one box."""
    motion = np.eye(8)
    motion[:4, 4:] = np.eye(4)
    look = np.eye(4, 8)
    numbers = model.measure(given[np.newaxis])
    place, speed = (np.broadcast_to(value, (1, 4))[0] for value in model.start(numbers))
    mean, covariance = np.concatenate([numbers[0], np.zeros(4)]), np.diag(np.concatenate([place, speed]) ** 2)
    for box in seen:
        place, speed = (np.broadcast_to(value, (1, 4))[0] for value in model.process(mean[np.newaxis, :4]))
        mean = motion @ mean
        covariance = motion @ covariance @ motion.T + np.diag(np.concatenate([place, speed]) ** 2)
        sensor = np.diag(np.broadcast_to(model.sensor(mean[np.newaxis, :4]), (1, 4))[0] ** 2)
        gain = covariance @ look.T @ np.linalg.inv(look @ covariance @ look.T + sensor)
        mean = mean + gain @ (model.measure(box[np.newaxis])[0] - look @ mean)
        covariance = covariance - gain @ look @ covariance
    return mean, covariance


@pytest.mark.parametrize("name", MODELS)
def test_against_the_matrix_filter(name: str) -> None:
    model, start = MODELS[name], boxes(1)[0]
    seen = [start + np.array([3.0, 1.0, 4.0, 2.0]) * step for step in range(1, 8)]
    states = States.of(model, start[np.newaxis])
    for box in seen:
        states.predict(model, 1.0)
        states.update(model, [0], box[np.newaxis])
    mean, covariance = matrix_filter(model, start, seen)
    np.testing.assert_allclose(states.position[0], mean[:4], rtol=1e-9)
    np.testing.assert_allclose(states.velocity[0], mean[4:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(states.covariance[0, :, 0], np.diag(covariance)[:4], rtol=1e-9)
    np.testing.assert_allclose(states.covariance[0, :, 1], np.diag(covariance[:4, 4:]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(states.covariance[0, :, 2], np.diag(covariance)[4:], rtol=1e-9)


def test_a_gap_is_so_many_single_steps() -> None:
    """XYSR's noise does not depend on the state, so the two ways must agree to the last digit but rounding."""
    once, often = States.of(XYSR, boxes(5)), States.of(XYSR, boxes(5))
    for states in (once, often):
        states.velocity += np.array([2.0, -1.0, 30.0, 0.0])
    once.predict(XYSR, 4.0)
    for _ in range(4):
        often.predict(XYSR, 1.0)
    np.testing.assert_allclose(once.position, often.position)
    np.testing.assert_allclose(once.covariance, often.covariance)


def test_a_moved_camera_moves_the_boxes() -> None:
    states = States.of(XYWH, boxes(3))
    before = states.boxes(XYWH)
    states.velocity[:, 0] = 5.0
    turn = np.array([[0.0, -2.0, 7.0], [2.0, 0.0, -3.0]])  # a quarter turn, twice the size, a shift
    states.warp(turn, XYWH)
    after = states.boxes(XYWH)
    centre = (before[:, :2] + before[:, 2:]) / 2
    np.testing.assert_allclose((after[:, :2] + after[:, 2:]) / 2, centre @ turn[:, :2].T + turn[:, 2])
    np.testing.assert_allclose(after[:, 2:] - after[:, :2], 2 * (before[:, 2:] - before[:, :2]))
    np.testing.assert_allclose(states.velocity[:, :2], [[0.0, 10.0]] * 3, atol=1e-9)
