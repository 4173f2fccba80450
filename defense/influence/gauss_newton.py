r"""The Gauss-Newton matrix of a network that forward mode cannot take, from gradients of single samples.

    G = (1/n) sum_i sum_c  p_ic  g_ic g_ic^T,    g_ic = grad loss of sample i with label c,   p_ic = softmax(z_i)_c

For the cross-entropy this sum over all labels is the generalized Gauss-Newton matrix (Martens, New insights and
perspectives on the natural gradient method, JMLR 2020, section 9.2). Its rows sqrt(p_ic / n) g_ic are kept if they
fit into `ROOM`, and formed again for every product if not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.influence.members import Member, masked
from defense.influence.per_sample import Way, chunk_of, flat

ROOM = 2**27  # numbers of rows that are kept: 512 MB in float32


class Rows:
    """The rows sqrt(p_ic / n) g_ic of S, with G = S^T S, in parts (k, p)."""

    def __init__(self, model: nn.Module, member: Member, train: Split, batch_size: int, gradients: Way) -> None:
        """Take the samples of `train`; the model is in eval mode and has the parameters of `member`."""
        self.model, self.member, self.train, self.gradients = model, member, train, gradients
        self.size = chunk_of(member, batch_size)
        with torch.no_grad():
            self.classes = model(train.images.take(torch.arange(1))).shape[1]
        count = len(train) * self.classes * sum(value.numel() for value in member.parameters.values())
        self.kept: list[Tensor] | None = list(self.formed()) if count <= ROOM else None

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the parts."""
        return iter(self.kept) if self.kept is not None else self.formed()

    @torch.no_grad()
    def formed(self) -> Iterator[Tensor]:
        """Yield the parts, formed anew: a part is one label c of some samples."""
        for _, x, labels in self.train.batches(self.size):
            with masked(self.model, self.member):
                probabilities = self.model(x).softmax(1)
            for label in range(self.classes):
                found = self.gradients(self.model, self.member, x, torch.full_like(labels, label))
                g = torch.cat([flat(value) for value in found.values()], dim=1)
                yield (probabilities[:, label] / len(self.train)).sqrt()[:, None].to(g) * g

    def product(self, vectors: Tensor) -> Tensor:
        """Return G vectors, for vectors (p, k)."""
        return sum((part.T @ (part @ vectors) for part in self), torch.zeros_like(vectors))
