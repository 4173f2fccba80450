"""The same scores by peer libraries: an independent truth, and what the benchmark is measured against.

Both are asked for the mean over the validation samples j of the per-pair scores of TracIn (Pruthi et al. 2020),

    score_i = sum_c  rate_c  grad loss_i(theta_c) . (1/V) sum_j grad loss_j(theta_c)

which is the inner product at the checkpoints theta_c, v being the mean validation loss. The model is put in eval
mode and, as both libraries do, left with the parameters of the last checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from defense.data.splits import Split

Checkpoint = tuple[dict[str, Tensor], float]  # the state of the model, and the learning rate there


def captum_scores(
    model: nn.Module,
    checkpoints: Sequence[Checkpoint],
    train: Split,
    validation: Split,
    *,
    batch_size: int = 1,
    layers: list[str] | None = None,
) -> Tensor:
    """Return the scores (n,) by captum's TracInCP, its scores summed over the validation set (`aggregate`).

    Without `layers`, all parameters count and each sample has a backward pass of its own through the graph of its
    whole batch, so that batches of one are the fastest. With `layers`, the parameters of these linear and
    convolution layers alone, by captum's gradients of a whole batch at once, for which large batches are best.
    """
    from captum.influence import TracInCP

    def load(net: nn.Module, checkpoint: Checkpoint) -> float:
        net.load_state_dict(checkpoint[0])
        return checkpoint[1]

    with warnings.catch_warnings():
        # it makes its copies of the pictures ask for gradients, and warns of that
        warnings.filterwarnings("ignore", message=".*required_grads has been set")
        peer = TracInCP(
            model.eval(),
            pairs(train),
            list(checkpoints),
            checkpoints_load_func=load,
            layers=layers,
            loss_fn=nn.CrossEntropyLoss(reduction="none" if layers is None else "sum"),
            batch_size=batch_size,
            sample_wise_grads_per_batch=layers is not None,
        )
        summed = peer.influence(DataLoader(pairs(validation), batch_size), aggregate=True)
    return summed[0].detach() / len(validation)


def dattri_scores(
    model: nn.Module, checkpoints: Sequence[Checkpoint], train: Split, validation: Split, **options: Any
) -> Tensor:
    """Return the scores (n,) by dattri's TracInAttributor: the mean over j of `dattri_pairs`."""
    return dattri_pairs(model, checkpoints, train, validation, **options).mean(1)


def dattri_pairs(
    model: nn.Module,
    checkpoints: Sequence[Checkpoint],
    train: Split,
    validation: Split,
    *,
    batch_size: int,
    validation_batch_size: int,
    normalized: bool = False,
    projected: bool = False,
) -> Tensor:
    """Return the score of each pair (n, V) by dattri: TracIn, or Grad-Dot where every rate is 1.

    The gradients of the validation samples are computed anew for every batch of training samples: large batches
    are best. normalized: cosines instead of inner products (CosIn, Grad-Cos). projected: from 512 random
    projections of the gradients, as dattri does unless told otherwise; inexact.
    """
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    def loss(parameters: dict[str, Tensor], sample: tuple[Tensor, Tensor]) -> Tensor:
        picture, label = sample
        logits = functional_call(model, parameters, (picture[None],))
        return nn.functional.cross_entropy(logits, label[None])

    loaders = DataLoader(pairs(train), batch_size), DataLoader(pairs(validation), validation_batch_size)
    with torch.no_grad(), default_dtype(next(model.parameters()).dtype):  # the dtype that dattri keeps scores in
        task = AttributionTask(loss, model.eval(), [state for state, _ in checkpoints])
        rates = torch.tensor([rate for _, rate in checkpoints])
        peer = TracInAttributor(task, weight_list=rates, normalized_grad=normalized)
        if not projected:
            peer.projector_kwargs = None  # None given to the constructor is the default projection
        scores: Tensor = peer.attribute(*loaders)
    return scores


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors be of `dtype` while inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def pairs(split: Split) -> TensorDataset:
    """Return the split as a dataset of (picture, label)."""
    return TensorDataset(split.images.take(torch.arange(len(split))), split.labels)
