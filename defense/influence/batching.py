"""The size of batches: a number that was asked for, or one that suits the device and shrinks to its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from defense.data.splits import Split
from defense.errors import is_out_of_memory, out_of_memory_names
from defense.runtime.checkpoint import ThrottledCheckpoint
from defense.runtime.distributed import raise_on_all, rank_name, shard_batches
from defense.runtime.runtime import Runtime

log = logging.getLogger(__name__)
T = TypeVar("T")

SIZES = {"cpu": 128, "cuda": 1024}  # samples; of other devices as of the CPU


def map_batches(
    split: Split,
    size: int,
    function: Callable[[slice, Tensor, Tensor], Tensor],
    runtime: Runtime,
) -> Tensor:
    """Return function(rows, pictures, labels) (b, ...) of all batches as one tensor (n, ...) on the CPU.

    The checkpoint of `runtime` keeps the finished batches under its label, and a killed pass goes on from there.
    Each rank does some of the batches and keeps its own; all return the whole.
    """
    ranks = runtime.ranks
    mine, part = shard_batches(ranks, len(split), size), rank_name(ranks, runtime.label)

    def own() -> Tensor:
        checkpoint = ThrottledCheckpoint(runtime.checkpoint)
        kept = checkpoint.load(part) or {}
        same = kept.get("size", torch.tensor(0)).item() == size  # else the rows of a process are others
        known = kept["values"] if same else torch.empty(0)
        out = known.new_empty((len(mine), *known.shape[1:]))  # whole: small tensors would lie between large ones
        out[: len(known)] = known
        for rows, x, labels in split.batches(size, start=mine.start + len(known), stop=mine.stop):
            values = function(rows, x, labels)
            if out.shape[1:] != values.shape[1:] or out.dtype != values.dtype:  # the first of all
                out = torch.empty((len(mine), *values.shape[1:]), dtype=values.dtype)
            done = rows.stop - mine.start
            out[rows.start - mine.start : done] = values
            if checkpoint.due():
                checkpoint.save(part, {"values": out[:done], "size": torch.tensor(size)})
            runtime.progress(done, len(mine))
        return out

    return ranks.gather(raise_on_all(ranks, own))


def with_auto_batch_size(batch_size: int | None, split: Split, run: Callable[[int], T]) -> T:
    """Return run(size), a pass over `split` in batches of `size`.

    A number is taken as given. None starts from `SIZES`, and where memory runs out the pass starts again with
    half of it, which is said in the log. Raises InputError if memory runs out on the number given, or on one
    sample.
    """
    size = batch_size
    if size is None:
        size = max(1, min(SIZES.get(split.labels.device.type, SIZES["cpu"]), len(split)))
        while size > 1:
            try:
                return run(size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            log.warning("out of memory on a batch of %d samples, going on with %d", size, size // 2)
            size //= 2
    with out_of_memory_names("scorer.batch_size", size):
        return run(size)
