"""What Lightning iterates in one process: its share of each global batch, from the step that the run is at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from mezzotint.trainer.examples import Batch, Examples


@dataclass(frozen=True, slots=True)
class Share:
    """How a global batch is cut: into micro-batches, one after the other, and of each a part for every process.

    Attributes:
        batch_size: examples of one micro-batch in one process.
        accumulation: micro-batches of one step.
        rank: this process, of ``num_processes``.
    """

    batch_size: int
    accumulation: int = 1
    rank: int = 0
    num_processes: int = 1

    @property
    def global_batch(self) -> int:
        """Examples of one step."""
        return self.batch_size * self.accumulation * self.num_processes

    def num_steps(self, num_examples: int) -> int:
        """Return the steps of one epoch; its last one takes what it lacks from the next."""
        return -(-num_examples // self.global_batch)

    def numbers(self, micro_batch: int) -> range:
        """Return the examples of this process in the run's micro-batch of that number."""
        start = (micro_batch * self.num_processes + self.rank) * self.batch_size
        return range(start, start + self.batch_size)


class Batches:
    """One epoch of batches, from wherever the run is.

    The position is the run's step and nothing else, so a resumed run needs no other state.

    Args:
        examples: what there is.
        share: this process's part of it.
        step: asked at the beginning of each epoch, and when a run is resumed within one.
        num_workers: processes that read ahead; 0 reads in this one.
    """

    def __init__(self, examples: Examples, share: Share, step: Callable[[], int], num_workers: int = 0) -> None:
        self.examples = examples
        self.share = share
        self._step = step
        self._num_workers = num_workers

    def __len__(self) -> int:
        return self.share.num_steps(len(self.examples)) * self.share.accumulation

    def __iter__(self) -> Iterator[Batch]:
        first = self._step() * self.share.accumulation
        numbers = [self.share.numbers(first + i) for i in range(len(self))]
        if not self._num_workers:
            yield from (self.examples[each] for each in numbers)
            return
        # A generator of its own: without it torch would take a number from the global one, and change what follows.
        loader = DataLoader(
            self.examples,
            batch_size=None,
            sampler=numbers,
            num_workers=self._num_workers,
            generator=torch.Generator(),
        )
        yield from loader

    def state_dict(self) -> dict[str, int]:
        """Return nothing: with this method Lightning knows that a run can be resumed within an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Do nothing: the step says where the run is."""
