"""The T in the plane: its shape is the scene's, its coverage is an area."""

import math

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy_envs import push_t_geometry as geometry

near = st.floats(-0.08, 0.08)
angles = st.floats(-math.pi, math.pi)
poses = st.tuples(near, near, angles).map(np.array)


def inside(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Point-in-T by the definition of two boxes, for (N, 2) world points."""
    local = geometry.to_local(pose, points)
    boxes = [np.array(corners) for corners in geometry.RECTANGLES]
    return np.any([((local >= box.min(0)) & (local <= box.max(0))).all(axis=1) for box in boxes], axis=0)


def test_the_scene_has_the_same_t_in_block_and_goal():
    model = mujoco.MjModel.from_xml_path(str(geometry.ASSET))
    goal = model.body("goal").geomadr[0]
    for index, (name, corners) in enumerate(zip(("bar", "stem"), geometry.RECTANGLES, strict=True)):
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        for geom in (model.geom(name), model.geom(goal + index)):
            assert np.allclose(geom.pos[:2], (low + high) / 2)
            assert np.allclose(geom.size[:2], (high - low) / 2)
    assert model.geom("pusher").size[0] == geometry.PUSHER_RADIUS
    assert np.all(np.abs(model.actuator_ctrlrange) == geometry.ARENA)


def test_the_frame_sits_in_the_centre_of_mass():
    centres = [np.mean(corners, axis=0) for corners in geometry.RECTANGLES]
    areas = [np.ptp(corners, axis=0).prod() for corners in geometry.RECTANGLES]
    assert np.allclose(np.average(centres, axis=0, weights=areas), 0)
    assert sum(areas) == pytest.approx(geometry.AREA)


def test_keypoints_are_the_corners_and_the_centre():
    assert np.allclose(geometry.distance(geometry.KEYPOINTS[:8]), 0, atol=1e-12)
    assert len(np.unique(geometry.KEYPOINTS.round(6), axis=0)) == 9
    assert np.array_equal(geometry.KEYPOINTS[8], [0, 0])


@settings(max_examples=25, deadline=None)
@given(poses, poses)
def test_coverage_agrees_with_a_raster(block, goal):
    cells = 300
    width = 0.5 / cells
    axis = -0.25 + width * (np.arange(cells) + 0.5)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    raster = (inside(block, points) & inside(goal, points)).sum() * width**2 / geometry.AREA
    assert geometry.coverage(block, goal) == pytest.approx(raster, abs=0.02)


@given(poses, poses)
def test_coverage_is_symmetric_and_a_share(block, goal):
    covered = geometry.coverage(block, goal)
    assert 0 <= covered <= 1
    assert geometry.coverage(goal, block) == pytest.approx(covered, abs=1e-9)


@given(poses, poses, poses)
def test_coverage_does_not_depend_on_where_the_table_is(block, goal, motion):
    moved = geometry.compose(motion, block), geometry.compose(motion, goal)
    assert geometry.coverage(*moved) == pytest.approx(geometry.coverage(block, goal), abs=1e-9)


@given(poses)
def test_coverage_is_one_at_the_goal_and_whole_turns_away(pose):
    assert geometry.coverage(pose, pose) == pytest.approx(1, abs=1e-9)
    assert geometry.coverage(pose + np.array([0, 0, 2 * math.pi]), pose) == pytest.approx(1, abs=1e-9)


@given(poses, angles)
def test_coverage_is_zero_out_of_reach(pose, direction):
    reach = np.linalg.norm(geometry.KEYPOINTS, axis=1).max()
    away = 2 * reach + 1e-6
    shift = np.array([away * math.cos(direction), away * math.sin(direction), 0])
    assert geometry.coverage(pose + shift, pose) == 0


@given(st.floats(0, geometry.UNIT))
def test_coverage_of_a_shift_along_the_bar_has_a_closed_form(shift):
    # Bar and stem each lose a strip; what enters the other rectangle's columns is not covered twice.
    lost = shift * 4 * geometry.UNIT
    assert geometry.coverage(np.array([shift, 0, 0]), np.zeros(3)) == pytest.approx(1 - lost / geometry.AREA, abs=1e-9)


@given(poses, poses)
def test_relative_undoes_compose(origin, pose):
    back = geometry.compose(origin, geometry.relative(origin, pose))
    assert np.allclose(back[:2], pose[:2])
    assert math.cos(back[2] - pose[2]) == pytest.approx(1)


@given(poses, st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)).map(np.array))
def test_local_and_world_points_are_inverse(pose, point):
    assert np.allclose(geometry.transform(pose, geometry.to_local(pose, point)), point)


@settings(max_examples=50)
@given(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)).map(np.array))
def test_distance_is_that_of_the_nearest_point(point):
    boxes = [np.array(corners) for corners in geometry.RECTANGLES]
    nearest = min(np.linalg.norm(point - point.clip(box.min(0), box.max(0))) for box in boxes)
    assert max(float(geometry.distance(point)), 0.0) == pytest.approx(nearest, abs=1e-12)
