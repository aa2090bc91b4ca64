"""Demo of exact sampling, in a minute and without a simulator: python -m specpolicy.demo [checkpoint]

Draws chunks of a trained policy for recorded observations with several samplers, on the fastest installed engine.
Prints calls, milliseconds and whether the chunks have the policy's distribution.

The check uses the states that a chunk went through. At each step the network gives the mean of the next state. The
residual, in units of the step's noise, must be standard normal, and independent from step to step.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specpolicy.artifacts import local_path
from specpolicy.distributions import same_as_normal
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import load_policy
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.samplers.speculative.samplers import Speculative

SAMPLERS = ("ddpm", "ddim-10", "asd", "block", "recycled", "recycled-16")
CHUNKS = 15  # of each sampler; all of them take some ten seconds on two cores
LEAST = 1e-3  # a p-value below it means another distribution


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m specpolicy.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", nargs="?", default="checkpoints/lift", help="a checkpoint directory of ours")
    parser.add_argument("--engine", default="auto", help="what runs the network: auto, eager, openvino, ...")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of each sampler")
    options = parser.parse_args(arguments)
    try:
        run(Path(options.policy), options.engine, options.chunks, print)
    except SpecpolicyError as error:
        print(f"specpolicy.demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run(path: Path, engine: str, chunks: int, say: Callable[[str], object]) -> None:
    """Draw, measure and check; `say` receives the lines of the table.

    Raises:
        SpecpolicyError: no such policy, no recorded observations beside it, a policy of action tokens.
    """
    if chunks < 2:
        raise SpecpolicyError(f"chunks={chunks}: expected at least 2")
    place = local_path(path)
    policy = load_policy(place)
    if policy.kind != "diffusion":
        raise SpecpolicyError(f"{path} is a policy of action tokens: give one with a chain, such as checkpoints/lift")
    histories = read_histories(place / FILE, policy)
    policy = policy.with_engine(engine)
    steps = policy.steps or 0
    say(f"{path}, a chunk of {steps} steps, engine {policy.engine_name}, {torch.get_num_threads()} threads")
    say(f"{'sampler':<12}{'calls':>7}{'ms':>8}{'/ ddpm':>8}   distribution")
    count = len(next(iter(histories.values())))
    reference = 0.0
    for name in samplers_for(steps):
        sampler, seconds, calls, noises = policy.sampler(name), list[float](), list[float](), list[Tensor]()
        chain = _chain(sampler.options, policy.chain)
        for number in range(chunks + 1):
            history = {key: values[number * count // (chunks + 1)] for key, values in histories.items()}
            policy.forget_frames()  # each sampler pays for encoding the observation
            out = sampler(history, torch.Generator().manual_seed(number))
            if number:  # the first one warms up
                seconds.append(out.stats.seconds)
                calls.append(float(out.stats.calls[0]))
                states = sampler(history, torch.Generator().manual_seed(number), return_states=True).states
                if chain is not None and states is not None:
                    noises.append(implied_noises(policy, chain, history, states))
        kept = "the policy's own" if chain is None or len(chain) == steps else f"its own with {len(chain)} steps"
        verdict = _verdict(torch.cat(noises), kept) if noises else "another: a solver without noise"
        taken = statistics.median(seconds)
        reference = reference or taken
        figures = f"{statistics.mean(calls):>7.1f}{1e3 * taken:>8.1f}{taken / reference:>8.2f}"
        say(f"{name:<12}{figures}   {verdict}")


def samplers_for(steps: int) -> list[str]:
    """Return the samplers to show for a chain of so many steps: shorter chains than the policy's only."""
    return [name for name in SAMPLERS if "-" not in name or int(name.rpartition("-")[2]) < steps]


def _chain(sampler: Any, chain: Any) -> Any:
    """Return the chain whose distribution a sampler draws from; None for one that adds no noise."""
    if isinstance(sampler, Speculative):
        return sampler.target(chain)
    return chain if sampler.name == "ddpm" and sampler.steps is None else None


@torch.inference_mode()
def implied_noises(policy: Any, chain: Any, history: Any, states: Tensor) -> Tensor:
    """Return the noises (K', H*D) float64 that lead from one of the `states` (K+1, 1, H, D) of a chunk to the next, for
    the K' steps that add any."""
    cond = policy.encode(history)
    path, network = states[:, 0], policy.engine or policy.denoiser
    steps = (chain.sigma > 0).nonzero().flatten()
    before = path[:-1][steps]
    output = network(before, chain.timesteps[steps], cond.expand(len(steps), *cond.shape[1:]))
    mean = chain.mean(before, chain.x0(output, before, steps), steps)
    return ((path[1:][steps] - mean).double() / chain.sigma[steps][:, None, None]).flatten(1)


def _verdict(noises: Tensor, kept: str) -> str:
    p = same_as_normal(noises)
    return f"{kept} (p = {p:.2g})" if p > LEAST else f"another (p = {p:.1g})"


if __name__ == "__main__":
    sys.exit(main())
