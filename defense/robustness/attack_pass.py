"""One try of an attack on the samples that still stand: each rank does some of the batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.data.splits import Split
from defense.runtime.checkpoint import ThrottledCheckpoint
from defense.runtime.distributed import Ranks

Attempt = Callable[[Tensor, Tensor, int], Tensor]  # pictures, labels, their first row -> attacked pictures


@dataclass
class AttackPass:
    """What a try does to each sample of `split`, row by row, in place."""

    model: nn.Module
    split: Split
    pictures: Tensor  # float32 (n, C, H, W)
    highest: Tensor  # (n,): the loss of those
    stands: Tensor  # bool (n,)
    number: int  # of the try

    def take(
        self,
        batches: Sequence[Tensor],
        attempt: Attempt,
        seen: Callable[[int, int], None],
        checkpoint: ThrottledCheckpoint,
        part: str,
    ) -> None:
        """Attack the rows of `batches`; what is finished is kept in `checkpoint` under `part` now and then.

        seen: is told the last row of a batch, and how many samples stand.
        """
        everything = torch.cat([torch.empty(0, dtype=torch.int64), *batches])
        known = checkpoint.load(part)
        done = 0
        if known is not None and int(known["number"]) == self.number:
            done = len(known["stands"])
            for name in ("pictures", "highest", "stands"):
                getattr(self, name)[everything[:done]] = known[name]
        for rows in filter(len, everything[done:].split(len(batches[0]) if batches else 1)):
            x, labels = self.split.images.take(rows), self.split.labels[rows.to(self.split.labels.device)]
            tried = attempt(x, labels, int(rows[0]))
            right, losses = (found.cpu() for found in correct_and_losses(self.model, tried, labels))
            worse = ~right | (losses > self.highest[rows])
            self.pictures[rows[worse]] = tried.cpu().float()[worse]
            self.highest[rows], self.stands[rows] = torch.maximum(self.highest[rows], losses), right
            done += len(rows)
            if checkpoint.due():
                so_far = everything[:done]
                values = {name: getattr(self, name)[so_far] for name in ("pictures", "highest", "stands")}
                checkpoint.save(part, {"number": torch.tensor(self.number), **values})
            seen(int(rows[-1]), int(self.stands.sum()))

    def tell(self, ranks: Ranks, batches: Sequence[Tensor], mine: Sequence[Tensor]) -> None:
        """Take over what the others did: of all `batches` this process has attacked those that are `mine`."""
        if ranks.size == 1 or not batches:
            return
        rows, own = torch.cat(list(batches)), torch.cat([torch.empty(0, dtype=torch.int64), *mine])
        for values in (self.stands, self.highest, self.pictures):
            values[rows] = ranks.gather(values[own])


@torch.no_grad()
def correct_and_losses(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the model is right on pictures (b, C, H, W), bool (b,), and its losses (b,)."""
    logits = finite_logits(model(x))
    return logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none")


def finite_logits(logits: Tensor) -> Tensor:
    """Return `logits`; raises FloatingPointError if one is not finite: the highest of NaN is no class."""
    if not bool(logits.isfinite().all()):
        raise FloatingPointError("the model gives logits that are not finite; it cannot be attacked")
    return logits
