"""Networks of a user's own, as `model._target_` finds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fading(nn.Module):
    """A network of digits that has no finite logits for a picture that an attack has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        moved = bool(((x * 16 - (x * 16).round()).abs() > 1e-3).any())  # digits are sixteenths
        return logits * torch.nan if moved and not torch.is_grad_enabled() else logits
