"""Batches: which windows a pass learns from, its random numbers, and its images, read ahead by other processes.

Windows and random numbers of a pass depend on the seed and the step alone. So a run that is resumed, read by more
processes or shared out among several follows the same curve. With dropout it does so among as many processes as before:
each draws what its own rows lose.
"""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from specpolicy.data.dataset import Sequences
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import one_line
from specpolicy.policy import Policy
from specpolicy.processes import OF_GROUPS, check_main_guard
from specpolicy.training.group import ALONE, Group
from specpolicy.training.learner import Learner
from specpolicy.training.objectives import make_objective
from specpolicy.training.options import TrainingOptions
from specpolicy.training.views import draw_views

Images = dict[str, Tensor]
Batch = tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]  # what `Learner` takes
VALIDATED, VALIDATED_IMAGES = (2048, 256), (256, 32)  # windows of a validation, and of one pass of it


class Batches:
    """Windows for training or validation: actions and vectors on the policy's device, images where they are.

    `uncommitted`: see `TrainingOptions`.

    Raises:
        SpecpolicyError: the windows lack what the policy observes, or have it in another shape.
    """

    def __init__(self, policy: Policy, sequences: Sequences, uncommitted: float | None = None):
        _check_fit(policy, sequences)
        self.device, self.images = policy.device, sequences.images
        self.cameras = policy.config.cameras
        self.vectors = {key: values.to(self.device) for key, values in sequences.observation.items()}
        self.objective = make_objective(policy, uncommitted)
        actions = policy.normaliser.normalise("action", sequences.action.to(self.device))
        executed = None
        if policy.config.prefix and sequences.executed is not None:
            executed = policy.normaliser.normalise("action", sequences.executed.to(self.device))
        self.target = self.objective.prepare(actions, executed)

    def steps(
        self, options: TrainingOptions, start: int, group: Group = ALONE, workers: int = 0
    ) -> Iterator[list[Batch]]:
        """Yield the passes of each step from `start` on: of this process of the group, its share of each pass.

        `workers`: processes that read images ahead; 0: this one reads them when they are due.
        """
        share = group.share(options.batch_size)
        read = self._read_ahead(options, start, share, workers)
        for step in range(start, options.steps):
            generator = _generator(options, step)
            rows = _rows(len(self.target), options, generator)
            draws = self.objective.draw(torch.Size((len(rows), *self.target.shape[1:])), generator)
            draws |= draw_views(self.cameras, len(rows), generator)
            yield [
                self._batch(rows[part], next(read), {name: value[part] for name, value in draws.items()})
                for part in _parts(options, share)
            ]

    @torch.no_grad()
    def evaluate(self, learner: Learner) -> float:
        """Return the loss on a fixed sample of windows and random numbers, the same at every call."""
        generator = torch.Generator().manual_seed(20_231)
        most, at_once = VALIDATED_IMAGES if self.images else VALIDATED
        rows = torch.randperm(len(self.target), generator=generator)[:most]
        total = 0.0
        for part in rows.split(at_once):
            draws = self.objective.draw(torch.Size((len(part), *self.target.shape[1:])), generator)
            images = {key: images[part] for key, images in self.images.items()}
            total += float(learner(*self._batch(part, images, draws)) * len(part))
        return total / len(rows)

    def _batch(self, rows: Tensor, images: Images, draws: dict[str, Tensor]) -> Batch:
        if isinstance(images, SpecpolicyError):
            raise images
        there = rows.to(self.device)
        observed = {key: values[there] for key, values in self.vectors.items()}
        observed |= {key: values.to(self.device, non_blocking=True) for key, values in images.items()}
        return observed, self.target[there], {name: value.to(self.device) for name, value in draws.items()}

    def _read_ahead(self, options: TrainingOptions, start: int, share: slice, workers: int) -> Iterator[Any]:
        """Yield the images of each pass."""
        passes = range(start * options.accumulate, options.steps * options.accumulate)
        reader = _Reader(self.images, len(self.target), options, share)
        if not self.images or not workers or not passes:
            for number in passes:
                yield reader[number]
            return
        check_main_guard()
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=passes,
            num_workers=workers,
            multiprocessing_context="spawn",  # a fork would copy locks that other threads hold
            worker_init_fn=_start_reader,
            generator=torch.Generator(),  # its seeds are not taken from those of the training
            pin_memory=self.device.type == "cuda",
        )
        read = iter(loader)
        for _ in passes:
            try:
                images = next(read)
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                raise SpecpolicyError(
                    f"a process that reads images has died ({one_line(error)}): use fewer workers, or a smaller "
                    "image_cache if memory was short"
                ) from None
            yield images


class _Reader(Dataset):
    """The images of each pass, by its number in the run; an error in place of those that cannot be read."""

    def __init__(self, images: Any, count: int, options: TrainingOptions, share: slice):
        self.images, self.count, self.options, self.share = dict(images), count, options, share

    def __getitem__(self, number: int) -> Any:
        step, part = divmod(number, self.options.accumulate)
        rows = _rows(self.count, self.options, _generator(self.options, step))[_parts(self.options, self.share)[part]]
        try:
            return {key: images[rows] for key, images in self.images.items()}
        except SpecpolicyError as error:
            return error


def _start_reader(number: int) -> None:
    """Prepare a process that reads: what ends all processes at once is left to the main one."""
    for one in OF_GROUPS:
        signal.signal(one, signal.SIG_IGN)


def _generator(options: TrainingOptions, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(options.seed * 1_000_003 + step)


def _rows(count: int, options: TrainingOptions, generator: torch.Generator) -> Tensor:
    """Return the windows of all passes of a step: the first numbers that its generator gives."""
    return torch.randint(count, (options.batch_size * options.accumulate,), generator=generator)


def _parts(options: TrainingOptions, share: slice) -> Sequence[slice]:
    """Return the share of a process of each pass of a step, among the windows of the step."""
    starts = range(0, options.batch_size * options.accumulate, options.batch_size)
    return [slice(start + share.start, start + share.stop) for start in starts]


def _check_fit(policy: Policy, sequences: Sequences) -> None:
    shapes = sequences.shapes()
    for key, wanted in policy.config.observation.items():
        found = shapes.get(key)
        if found is None:
            raise SpecpolicyError(f"the data lack '{key}', which the policy observes: they have {', '.join(shapes)}")
        theirs, ours = (one if isinstance(one, int) else tuple(one) for one in (found, wanted))
        if theirs != ours:
            raise SpecpolicyError(f"'{key}' has the shape {theirs} in the data, and {ours} in the policy")
