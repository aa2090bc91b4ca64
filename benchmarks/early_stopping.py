"""How many episodes `specpolicy evaluate stop=0.05` saves, by simulation; nothing is played.

python benchmarks/early_stopping.py

Pairs of episodes are drawn with given success rates, independently for both conditions of a seed (the worst case: real
seeds are solved by both or by none more often). After each pair the comparison is looked at as the evaluation does it.
Printed: how often each verdict comes, how many pairs it takes, and how many are needed if their number is fixed
beforehand.
"""

import argparse
import math

import numpy as np

from specpolicy.evaluation.power import smallest_difference
from specpolicy.evaluation.sequential import PairCounts, log_capital

WORLDS = [(0.9, 0.9), (0.9, 0.8), (0.9, 0.7), (0.9, 0.5), (0.9, 0.2), (0.97, 0.97)]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--episodes", type=int, default=300, help="most pairs of an evaluation")
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--alpha", type=float, default=0.05)
    options = parser.parse_args()
    print(f"{options.evaluations} evaluations of up to {options.episodes} pairs, stop={options.alpha:g}")
    print("| success | different | equal | wrong | pairs, median (90 %) | share of the episodes played |")
    print("|---|---|---|---|---|---|")
    for number, (first, second) in enumerate(WORLDS):
        print(row(first, second, options, np.random.default_rng(number)))
    for share in (0.9, 0.8):
        seen = smallest_difference(options.episodes, share)
        print(f"{options.episodes} pairs fixed beforehand, reference {share:g}: a loss of {seen:.2f} is seen (80 %)")


def row(first: float, second: float, options: argparse.Namespace, rng: np.random.Generator) -> str:
    """Simulate evaluations of one pair of success rates."""
    tried = np.array([0.0, -options.margin, options.margin])
    known: dict[tuple[int, int, int], str] = {}

    def verdict(ones: int, twos: int, same: int) -> str:
        key = (ones, twos, same)
        if key not in known:
            excluded = log_capital(PairCounts(*key), tried) >= -math.log(options.alpha)
            estimate = (ones - twos) / (ones + twos + same)
            if excluded[0]:
                known[key] = "different"
            else:
                equal = excluded[1] and excluded[2] and abs(estimate) < options.margin
                known[key] = "equal" if equal else "open"
        return known[key]

    found: list[tuple[str, int, bool]] = []
    for _ in range(options.evaluations):
        solved = rng.random((2, options.episodes)) < np.array([[first], [second]])
        ones, twos = (solved[0] & ~solved[1]).cumsum(), (solved[1] & ~solved[0]).cumsum()
        for pairs in range(1, options.episodes + 1):
            a, b = int(ones[pairs - 1]), int(twos[pairs - 1])
            said = verdict(a, b, pairs - a - b)
            if said != "open" or pairs == options.episodes:
                wrong = said == "different" and (a - b) * (first - second) <= 0
                wrong |= said == "equal" and abs(first - second) >= options.margin
                found.append((said, pairs, wrong))
                break
    pairs_needed = np.array([pairs for _, pairs, _ in found])
    shares = [np.mean([said == kind for said, _, _ in found]) for kind in ("different", "equal")]
    wrong_share = np.mean([wrong for *_, wrong in found])
    return (
        f"| {first:g}, {second:g} | {shares[0]:.1%} | {shares[1]:.1%} | {wrong_share:.1%} | "
        f"{np.median(pairs_needed):.0f} ({np.quantile(pairs_needed, 0.9):.0f}) | "
        f"{pairs_needed.mean() / options.episodes:.0%} |"
    )


if __name__ == "__main__":
    main()
