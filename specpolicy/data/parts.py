"""Training, validation and other parts of a data set, as the data set names them.

A data set divides its episodes by name: LeRobot's `splits`, robomimic's filter keys. Three parts have a role: train,
valid (also val, validation) and test. Nothing outside `train` is trained on. The three share no episode. A share is
held out only where the data set names no validation part.
"""

from collections.abc import Sequence

import numpy as np

from specpolicy.data.episodes import DataSet
from specpolicy.errors import SpecpolicyError

HELD_OUT_SEED = 20_240  # the held-out episodes do not depend on the run
TRAIN, VALID, TEST = "train", "valid", "test"
ROLES = {
    TRAIN: (TRAIN,),
    VALID: (VALID, "val", "validation"),
    TEST: (TEST, "testing", "eval", "evaluation", "holdout", "held_out"),
}


def choose(data: DataSet, split: str | None, share: float) -> list[str]:
    """Return the names of the episodes of a split, in the order of the data set.

    Args:
        data: the data set.
        split: None for all episodes; "train"; "valid": the part that the data set names for it, else a `share` of the
            episodes of `train`, or of all where no parts are named; any other part by its own name.
        share: of the episodes for validation, where the data set names none.

    Raises:
        SpecpolicyError: a part that is empty, names a missing episode or one twice; parts with a role that share an
            episode; parts without a `train`; an unknown split; no episodes to hold out from.
    """
    if split is None:
        return list(data.episodes)
    found = {role: [name for name in data.parts if name.casefold() in names] for role, names in ROLES.items()}
    role_of = {name: role for role, names in found.items() for name in names}
    members = {name: _members(data, name) for name in (*role_of, *([split] if split in data.parts else []))}
    _check_apart(data, members, role_of)
    if split not in (TRAIN, VALID):
        if split not in data.parts:
            there = ", ".join(data.parts) or "train and valid, by holding a share out"
            raise SpecpolicyError(f"{data.path} has no split '{split}' (it has {there})")
        return _in_order(data, [split], members)
    if data.parts and not found[TRAIN]:
        raise SpecpolicyError(
            f"{data.path} divides its episodes into {', '.join(data.parts)} and has no 'train': name the part to train "
            "on 'train' (robomimic: mask/train, LeRobot: splits of meta/info.json)"
        )
    training = _in_order(data, found[TRAIN], members) if found[TRAIN] else list(data.episodes)
    if found[VALID]:
        return training if split == TRAIN else _in_order(data, found[VALID], members)
    valid = {training[index] for index in held_out(len(training), share, data)}
    return [name for name in training if (name in valid) == (split == VALID)]


def held_out(count: int, share: float, data: DataSet) -> list[int]:
    """Return the numbers of the held-out episodes where the data set names none: at least one, always the same.

    Raises:
        SpecpolicyError: there is only one episode, or the share is zero.
    """
    if not 0 < share < 1:
        raise SpecpolicyError(f"validation={share}: expected a share between 0 and 1")
    if count < 2:
        raise SpecpolicyError(f"{data.path} has one episode: at least two are needed, one of them to validate on")
    number = min(max(1, round(share * count)), count - 1)
    rng = np.random.default_rng(HELD_OUT_SEED)
    return sorted(int(episode) for episode in rng.choice(count, number, replace=False))


def _members(data: DataSet, part: str) -> set[str]:
    names = data.parts[part]
    for name in names:
        if name not in data.episodes:
            raise SpecpolicyError(f"{data.path}: '{part}' names episode {name}, which is not there")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise SpecpolicyError(f"{data.path}: '{part}' names episode {twice} more than once")
    return set(names)


def _check_apart(data: DataSet, members: dict[str, set[str]], role_of: dict[str, str]) -> None:
    for one in role_of:
        for other in role_of:
            if role_of[one] != role_of[other] and members[one] & members[other]:
                name = _in_order(data, [one], {one: members[one] & members[other]})[0]
                raise SpecpolicyError(
                    f"{data.path}: episode {name} is in '{one}' and in '{other}': take it out of one of them"
                )


def _in_order(data: DataSet, parts: Sequence[str], members: dict[str, set[str]]) -> list[str]:
    names = set().union(*(members[part] for part in parts))
    if not names:
        raise SpecpolicyError(f"{data.path}: '{parts[0]}' has no episodes")
    return [name for name in data.episodes if name in names]
