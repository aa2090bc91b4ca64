"""Comparisons between conditions, paired by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from specpolicy.evaluation import statistics
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.equivalence import equivalence


def pairs(conditions: Sequence[Condition], references: Sequence[str] = ()) -> list[tuple[Condition, Condition, str]]:
    """List the comparisons to make, as (condition, reference, kind).

    Kind "sampler" compares a condition with each reference sampler, all else equal. Kind "circumstances" compares it
    with the first condition of its own sampler; tracks put the one in which inference costs the least time first.

    Args:
        conditions: all conditions, in the order of the track.
        references: labels of the reference samplers; empty: the first sampler.
    """
    own: dict[str, Condition] = {}
    for condition in conditions:
        own.setdefault(condition.sampler, condition)
    references = list(references) or [conditions[0].sampler]
    found = []
    for number, reference in enumerate(references):
        beside = {condition.circumstances: condition for condition in conditions if condition.sampler == reference}
        # Of two references, the second is compared with the first and not the other way round.
        for condition in conditions:
            if condition.sampler not in references[: number + 1]:
                found.append((condition, beside.get(condition.circumstances, own[reference]), "sampler"))
    return found + [
        (condition, own[condition.sampler], "circumstances")
        for condition in conditions
        if own[condition.sampler] != condition
    ]


def difference(
    played: Mapping[str, Mapping[int, Mapping[str, str]]],
    label: str,
    reference: str,
    kind: str,
    margin: float,
    means: Sequence[str],
) -> dict[str, Any]:
    """Compare two conditions over the seeds that both have played: `label` minus `reference`.

    Args:
        played: rows of episodes.csv by condition and seed.
        label: the condition to compare.
        reference: the condition it is compared with.
        kind: "sampler" or "circumstances", as from `pairs`.
        margin: margin of the equivalence test.
        means: columns whose mean difference is wanted.

    Returns:
        Plain values for the summary. A mean difference is None if a value is missing.
    """
    common = sorted(played[label].keys() & played[reference].keys())
    ours, theirs = ([played[name][seed] for seed in common] for name in (label, reference))
    solved, solved_there = (np.array([row["success"] == "1" for row in rows]) for rows in (ours, theirs))
    tests = equivalence(solved, solved_there, margin)
    found: dict[str, Any] = {
        "condition": label,
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
