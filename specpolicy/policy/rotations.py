"""Converts rotations from six continuous numbers, as policies predict them, to those of robots."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def matrix_from_six(six: Tensor) -> Tensor:
    """Convert two rows (..., 6) to a rotation matrix (..., 3, 3) by Gram-Schmidt (Zhou et al. 2019, section B)."""
    first, second = six[..., :3], six[..., 3:]
    row0 = torch.nn.functional.normalize(first, dim=-1)
    row1 = torch.nn.functional.normalize(second - (row0 * second).sum(-1, keepdim=True) * row0, dim=-1)
    return torch.stack([row0, row1, torch.linalg.cross(row0, row1)], dim=-2)


def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """Convert (..., 3, 3) to a unit quaternion (..., 4), w first, from its best-conditioned component (Shepperd
    1978)."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Row i is the quaternion times 4 q_i; the row of the largest q_i divides by the largest number.
    w_row = [1 + trace, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    diagonal = [1 - trace + 2 * m[..., i, i] for i in range(3)]
    rows = torch.stack(
        [
            torch.stack(w_row, -1),
            torch.stack([w_row[1], diagonal[0], xy, xz], -1),
            torch.stack([w_row[2], xy, diagonal[1], yz], -1),
            torch.stack([w_row[3], xz, yz, diagonal[2]], -1),
        ],
        dim=-2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return torch.nn.functional.normalize(row, dim=-1)


def axis_angle_from_matrix(matrix: Tensor) -> Tensor:
    """Convert (..., 3, 3) to axis times angle (..., 3), radians.

    The quaternion's sign is the one of `quaternion_from_matrix`, so angles reach beyond pi, as in robomimic.
    """
    quaternion = quaternion_from_matrix(matrix)
    vector = quaternion[..., 1:]
    length = vector.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(length, quaternion[..., :1])
    # For small rotations angle / length tends to 2.
    return vector * torch.where(length > 1e-7, angle / length.clamp(min=1e-7), 2 * torch.ones_like(length))


def euler_from_matrix(matrix: Tensor) -> Tensor:
    """Convert (..., 3, 3) to angles (..., 3), radians, with matrix = Rx(a) Ry(b) Rz(c)."""
    return torch.stack(
        [
            torch.atan2(-matrix[..., 1, 2], matrix[..., 2, 2]),
            torch.asin(matrix[..., 0, 2].clamp(-1, 1)),
            torch.atan2(-matrix[..., 0, 1], matrix[..., 0, 0]),
        ],
        dim=-1,
    )


def axis_angle_from_six(six: Tensor) -> Tensor:
    """Convert (..., 6) to (..., 3)."""
    return axis_angle_from_matrix(matrix_from_six(six))


def euler_from_six(six: Tensor) -> Tensor:
    """Convert (..., 6) to (..., 3)."""
    return euler_from_matrix(matrix_from_six(six))


def six_from_matrix(matrix: Tensor) -> Tensor:
    """Convert (..., 3, 3) to its first two rows (..., 6), which `matrix_from_six` reads."""
    return matrix[..., :2, :].flatten(-2)


def six_from_axis_angle(vector: Tensor) -> Tensor:
    """Convert axis times angle (..., 3) to (..., 6), by Rodrigues' formula."""
    angle = vector.norm(dim=-1, keepdim=True)[..., None]
    x, y, z = (vector / angle[..., 0].clamp(min=1e-12)).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return six_from_matrix(eye + angle.sin() * cross + (1 - angle.cos()) * cross @ cross)


def six_from_euler(angles: Tensor) -> Tensor:
    """Convert the angles (..., 3) of Rx(a) Ry(b) Rz(c) to (..., 6)."""
    (a, b, c), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    row0 = torch.stack([b * c, -b * sc, sb], dim=-1)
    row1 = torch.stack([a * sc + sa * sb * c, a * c - sa * sb * sc, -sa * b], dim=-1)
    return torch.cat([row0, row1], dim=-1)


# Names as in a policy's config.json.
CONVERSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "axis_angle": axis_angle_from_six,
    "euler_xyz": euler_from_six,
}


INVERSES: dict[str, Callable[[Tensor], Tensor]] = {
    "axis_angle": six_from_axis_angle,
    "euler_xyz": six_from_euler,
}


def convert_rotations(actions: Tensor, starts: Mapping[int, str]) -> Tensor:
    """Replace six numbers of each action (..., D) by three, at each of the `starts`: {index: name of CONVERSIONS}."""
    parts, position = [], 0
    for start, name in sorted(starts.items()):
        parts += [actions[..., position:start], CONVERSIONS[name](actions[..., start : start + 6])]
        position = start + 6
    return torch.cat([*parts, actions[..., position:]], dim=-1)


def restore_rotations(actions: Tensor, starts: Mapping[int, str]) -> Tensor:
    """Invert `convert_rotations`: three numbers of each action (..., D) become six again, at the same `starts`."""
    parts, position = [], 0
    for number, (start, name) in enumerate(sorted(starts.items())):
        here = start - 3 * number  # each rotation before it is three numbers shorter here
        parts += [actions[..., position:here], INVERSES[name](actions[..., here : here + 3])]
        position = here + 3
    return torch.cat([*parts, actions[..., position:]], dim=-1)
