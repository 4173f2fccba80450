"""Torch's forward mode, loaded in silence."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch.autograd import forward_ad


@cache
def load_forward_mode() -> None:
    """Load torch's rules for forward mode, as it does on first use, warning of its own torch.jit.script."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
