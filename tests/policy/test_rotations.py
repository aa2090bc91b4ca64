"""Rotations against scipy's, over the whole group and at its awkward places."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from specpolicy.policy.rotations import (
    axis_angle_from_six,
    convert_rotations,
    euler_from_six,
    matrix_from_six,
    quaternion_from_matrix,
    restore_rotations,
)

AWKWARD = [[0, 0, 0], [1e-9, 0, 0], [1e-4, 0, 0], [np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi - 1e-6], [2.0, -2.0, 1.0]]
ROTATIONS = Rotation.concatenate([Rotation.random(500, random_state=0), Rotation.from_rotvec(AWKWARD)])
SIX = torch.tensor(ROTATIONS.as_matrix()[:, :2].reshape(-1, 6))


def angle_between(found):
    return (found * ROTATIONS.inv()).magnitude().max()


def test_gram_schmidt_makes_a_rotation_and_keeps_one():
    torch.testing.assert_close(matrix_from_six(SIX), torch.tensor(ROTATIONS.as_matrix()))
    any_numbers = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = matrix_from_six(any_numbers)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).double().expand(100, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(100).double())


@pytest.mark.parametrize("dtype, tolerance", ((torch.float64, 1e-6), (torch.float32, 2e-3)))
def test_each_representation_is_the_same_rotation(dtype, tolerance):
    six = SIX.to(dtype)
    assert angle_between(Rotation.from_rotvec(axis_angle_from_six(six).numpy())) < tolerance
    assert angle_between(Rotation.from_euler("XYZ", euler_from_six(six).numpy())) < tolerance
    quaternions = quaternion_from_matrix(matrix_from_six(six)).numpy()
    assert angle_between(Rotation.from_quat(np.roll(quaternions, -1, axis=-1))) < tolerance


def test_only_the_named_numbers_are_replaced():
    actions = torch.cat([torch.full((7, 1), 5.0), SIX[:7].float(), SIX[7:14].float(), torch.full((7, 2), 6.0)], dim=-1)
    converted = convert_rotations(actions, {7: "euler_xyz", 1: "axis_angle"})
    assert converted.shape == (7, 9)
    assert (converted[:, 0] == 5).all() and (converted[:, 7:] == 6).all()
    torch.testing.assert_close(converted[:, 1:4], axis_angle_from_six(SIX[:7].float()))
    torch.testing.assert_close(converted[:, 4:7], euler_from_six(SIX[7:14].float()))


@pytest.mark.parametrize("starts", ({0: "axis_angle"}, {1: "euler_xyz", 9: "axis_angle"}))
def test_actions_are_restored_to_what_they_were_converted_from(starts):
    actions = torch.randn(len(SIX), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for start in starts:
        actions[:, start : start + 6] = SIX
    found = restore_rotations(convert_rotations(actions, starts), starts)
    torch.testing.assert_close(found, actions, rtol=0, atol=1e-6)
