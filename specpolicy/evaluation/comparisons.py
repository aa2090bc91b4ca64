"""Which arms are compared with which, and how: paired by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from specpolicy.evaluation import statistics
from specpolicy.evaluation.arms import Arm
from specpolicy.evaluation.equivalence import equivalence


def pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm, str]]:
    """(arm, reference, kind) for each comparison.

    "sampler": with the first sampler under the same condition. "condition": with the same sampler's own first
    condition, which the tracks make the one that costs the least time.
    """
    first = arms[0]
    reference = {arm.condition: arm for arm in arms if arm.sampler == first.sampler}
    own: dict[str, Arm] = {}
    found = []
    for arm in arms:
        beside = reference.get(arm.condition, first)
        if arm.sampler != first.sampler:
            found.append((arm, beside, "sampler"))
        if own.setdefault(arm.sampler, arm) != arm:
            found.append((arm, own[arm.sampler], "condition"))
    return sorted(found, key=lambda one: one[2], reverse=True)


def difference(
    played: Mapping[str, Mapping[int, Mapping[str, str]]],
    label: str,
    reference: str,
    kind: str,
    margin: float,
    means: Sequence[str],
) -> dict[str, Any]:
    """`label` minus `reference` over the seeds that both have played.

    Args:
        played: rows of episodes.csv by arm and seed.
        margin: of the equivalence test.
        means: columns whose mean difference is wanted.
    """
    common = sorted(played[label].keys() & played[reference].keys())
    ours, theirs = ([played[name][seed] for seed in common] for name in (label, reference))
    solved, solved_there = (np.array([row["success"] == "1" for row in rows]) for rows in (ours, theirs))
    tests = equivalence(solved, solved_there, margin)
    found: dict[str, Any] = {
        "arm": label,
        "reference": reference,
        "kind": kind,
        "episodes": len(common),
        "success_rate": asdict(statistics.paired_success_difference(solved, solved_there)),
        "success_p_value": statistics.mcnemar(solved, solved_there),
        "equivalence": {**asdict(tests), "equivalent": tests.equivalent, "no_loss": tests.no_loss},
    }
    for name in means:
        first, second = ([row[name] for row in rows] for rows in (ours, theirs))
        known = "" not in (*first, *second)
        found[name] = (
            asdict(statistics.paired_mean_difference(np.array(first, float), np.array(second, float)))
            if known
            else None
        )
    return found
