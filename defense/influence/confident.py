"""Confident learning (Northcutt et al. 2021), by cleanlab: labels that models which have not seen them doubt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from defense.errors import InputError


def check_cleanlab() -> None:
    """Raise InputError if cleanlab is not installed."""
    try:
        import cleanlab  # noqa: F401
    except ImportError as error:
        said = 'is computed by cleanlab: pip install -e ".[noise]"'
        raise InputError("scorer", "confident_learning", said) from error


def label_quality(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return p_i(label_i), less 1 where confident learning calls the label wrong: float64 (n,) in [-1, 1].

    labels: int64 (n,), each class at least once; probabilities: (n, classes) by models that have not seen the
    sample. What is called wrong thereby comes before all others, in each of both the least self-confident first.
    The calls are cleanlab's find_label_issues by its default, prune_by_noise_rate.
    """
    from cleanlab.filter import find_label_issues

    given, held_out = labels.cpu().numpy(), probabilities.double().numpy()
    wrong = find_label_issues(given, held_out, n_jobs=1)
    own = held_out[np.arange(len(given)), given]
    return torch.from_numpy(own - np.asarray(wrong, dtype=float))
