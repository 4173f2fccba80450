"""Scores by peer libraries: an independent truth, and what the cost of scores is measured against.

They are the extra `peers`, imported on first use. For TracIn both are asked for the mean over the validation
samples j of the per-pair scores (Pruthi et al. 2020),

    score_i = sum_c  rate_c  grad loss_i(theta_c) . (1/V) sum_j grad loss_j(theta_c)

which is the inner product at the checkpoints theta_c, v being the mean validation loss. The model is put in eval
mode and, as both libraries do, left with the parameters of the last checkpoint. All work on the CPU.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from defense.config.choices import Peer
from defense.data.splits import Split

BATCH_SIZE = 512  # of dattri: its fastest, as gradients of validation samples are made anew for every batch
DIRECTIONS = 512  # random ones that TRAK projects gradients on; dattri's default
RIDGE = 1e-6  # on the diagonal of TRAK's kernel, which has no inverse if there are fewer samples than directions
State = tuple[dict[str, Tensor], float]  # the state of the model, and the learning rate there


def captum_scores(
    model: nn.Module,
    checkpoints: Sequence[State],
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

    def load(net: nn.Module, checkpoint: State) -> float:
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
    model: nn.Module, checkpoints: Sequence[State], train: Split, validation: Split, **options: Any
) -> Tensor:
    """Return the scores (n,) by dattri's TracInAttributor: the mean over j of `dattri_pairs`."""
    return dattri_pairs(model, checkpoints, train, validation, **options).mean(1)


def dattri_pairs(
    model: nn.Module,
    checkpoints: Sequence[State],
    train: Split,
    validation: Split,
    *,
    batch_sizes: tuple[int, int],
    normalized: bool = False,
    projected: bool = False,
) -> Tensor:
    """Return the score of each pair (n, V) by dattri: TracIn, or Grad-Dot where every rate is 1.

    batch_sizes: of training and validation samples. The gradients of the latter are computed anew for every batch
    of the former: large batches are best. normalized: cosines instead of inner products (CosIn, Grad-Cos).
    projected: from 512 random projections of the gradients, as dattri does unless told otherwise; inexact.
    """
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    def loss(parameters: dict[str, Tensor], sample: tuple[Tensor, Tensor]) -> Tensor:
        picture, label = sample
        logits = functional_call(model, parameters, (picture[None],))
        return nn.functional.cross_entropy(logits, label[None])

    loaders = DataLoader(pairs(train), batch_sizes[0]), DataLoader(pairs(validation), batch_sizes[1])
    with silent_bars(), torch.no_grad(), default_dtype(next(model.parameters()).dtype):  # scores are kept in it
        task = AttributionTask(loss, model.eval(), [state for state, _ in checkpoints])
        rates = torch.tensor([rate for _, rate in checkpoints])
        peer = TracInAttributor(task, weight_list=rates, normalized_grad=normalized)
        if not projected:
            peer.projector_kwargs = None  # None given to the constructor is the default projection
        scores: Tensor = peer.attribute(*loaders)
    return scores


def trak_scores(
    model: nn.Module,
    train: Split,
    validation: Split,
    *,
    batch_size: int = BATCH_SIZE,
    directions: int = DIRECTIONS,
) -> Tensor:
    """Return the scores (n,) by dattri's TRAKAttributor (Park et al. 2023) at the model alone: means over j of

        (1 - p_i)  P grad f_j . (G'G + RIDGE I)^-1 P grad f_i

    f = log(p / (1 - p)), p the probability of the known label; P: projections on random `directions`, divided by
    the root of the number of parameters; the rows of G are P grad f_i of the training samples.
    """
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    def logits_of(parameters: dict[str, Tensor], picture: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, parameters, (picture[None],))
        return logits

    def odds(parameters: dict[str, Tensor], sample: tuple[Tensor, Tensor]) -> Tensor:
        logits = logits_of(parameters, sample[0])[0]
        own = torch.arange(len(logits)) == sample[1]
        return torch.where(own, logits, 0).sum() - torch.where(own, -torch.inf, logits).logsumexp(0)

    def probability(parameters: dict[str, Tensor], sample: tuple[Tensor, Tensor]) -> Tensor:
        return logits_of(parameters, sample[0])[0].softmax(0)[sample[1]]

    state = {name: value.detach() for name, value in model.named_parameters()} | dict(model.named_buffers())
    with silent_bars(), torch.no_grad(), default_dtype(next(model.parameters()).dtype):
        task = AttributionTask(odds, model.eval(), [state])
        peer = TRAKAttributor(task, probability, {"proj_dim": directions}, regularization=RIDGE)
        peer.cache(DataLoader(pairs(train), batch_size))
        scores: Tensor = peer.attribute(DataLoader(pairs(validation), batch_size))
    return scores.mean(1)


@contextmanager
def silent_bars() -> Iterator[None]:
    """Show no progress of dattri's, which goes to stderr; its errors are raised all the same."""
    with redirect_stderr(io.StringIO()):
        yield


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


def at_model(scores: Callable[..., Tensor], **options: Any) -> Callable[[nn.Module, Split, Split], Tensor]:
    """Return a function of TracIn at checkpoints as one at a model, which is its only checkpoint, of rate 1."""

    def function(model: nn.Module, train: Split, validation: Split) -> Tensor:
        copy = deepcopy(model)  # which is left as it is
        return scores(copy, [(copy.state_dict(), 1.0)], train, validation, **options)

    return function


@dataclass(frozen=True)
class Library:
    """A function (model, train, validation) -> scores (n,), its package, and whether they are those of ip."""

    package: str
    scores: Callable[[nn.Module, Split, Split], Tensor]
    exact: bool

    @property
    def installed(self) -> bool:
        """Whether the package is there."""
        return find_spec(self.package) is not None


PEERS: dict[Peer, Library] = {
    Peer.captum_tracin: Library("captum", at_model(captum_scores), exact=True),
    Peer.dattri_tracin: Library(
        "dattri",
        at_model(dattri_scores, batch_sizes=(BATCH_SIZE, BATCH_SIZE)),
        exact=True,
    ),
    Peer.dattri_trak: Library("dattri", trak_scores, exact=False),
}
