r"""The cross-entropy of a sample, and its derivatives, without cancellation.

    loss_i = log(1 + exp t_i),   t_i = log sum_{c != y} exp z_ic - z_iy,   d loss_i = sigmoid(t_i) d t_i

The usual form, log sum_c exp z_ic - z_iy, is a difference of two numbers that are nearly equal if a sample is
fitted: in float32 it, and its derivative in forward mode, are off by 6e-8 / loss_i.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = 40.0  # above it log(1 + exp t) is t, to the last bit of float64


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return t_i (b,), the logarithm of the odds against the label, of logits (b, classes) and labels (b,)."""
    own = labels[:, None]
    return logits.scatter(1, own, -torch.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return loss_i (b,) of logits (b, classes) and labels int64 (b,), in float32 at least."""
    exact = logits if logits.dtype is torch.float64 else logits.float()
    return F.softplus(log_odds(exact, labels), threshold=LINEAR)
