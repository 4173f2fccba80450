"""Classifiers of texts: a pretrained encoder that stays as it is, low-rank updates of some of its layers, a head.

    W x  ->  W x + (alpha / rank) B A x,    A (rank, inputs), B (outputs, rank), B = 0 at first

Only A, B and the head are parameters. What stays as it is are buffers that no state_dict holds: the weights of an
arm are then kilobytes, and every arm finds the encoder where it was. What the layers below the updated ones make
of a text never changes: `defense.models.states` brings every text there once. Source: Hu et al., LoRA, ICLR 2022;
the mean over tokens and the comparison of two texts as in Reimers and Gurevych, Sentence-BERT, 2019.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.data.pretrained import content_digest, loading, place_of
from defense.errors import InputError
from defense.randomness import global_seed

SCALE = 0.25  # of the entries of a feature: at 1 the head would outrun the updates, and diverge


class Encoded(nn.Module):
    """Texts as token ids int64 (b, 1, T, L), or as states (b, T, L, width) -> logits (b, classes).

    States are what the lowest layers make of a text, `below` of them: zeros if there is no token.
    """

    def __init__(self, encoder: Any, *, below: int, texts: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.below, self.pad = encoder, below, encoder.config.pad_token_id
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size * (1 if texts == 1 else 2), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; what stands for no token is not looked at."""
        states, mask = self.above(x) if x.is_floating_point() else self.whole(x)
        weights = mask[..., None].to(states)
        means = (states * weights).sum(-2) / weights.sum(-2)
        features = SCALE * F.layer_norm(means, means.shape[-1:])
        logits: Tensor = self.head(self.dropout(joined(features)))
        return logits

    def whole(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return what all layers make of ids (b, 1, T, L): states (b, T, L, width), and where tokens are."""
        rows = ids.flatten(0, 2)
        mask = rows != self.pad
        # four axes: a mask that encoders take as it is, without a look at its values
        states = self.encoder(input_ids=rows, attention_mask=mask[:, None, None, :]).last_hidden_state
        return states.unflatten(0, (len(ids), -1)), mask.unflatten(0, (len(ids), -1))

    def above(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the layers above make of states (b, T, L, width), and where tokens are."""
        mask, out = (states != 0).any(-1), states.flatten(0, 1)
        for layer in layers_of(self.encoder)[self.below :]:
            out = layer(out, mask.flatten(0, 1)[:, None, None, :])
        return out.unflatten(0, (len(states), -1)), mask


def layers_of(encoder: Any) -> nn.ModuleList:
    """Return the layers of an encoder; raises StopIteration if they are no list."""
    count = encoder.config.num_hidden_layers
    return next(part for part in encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == count)


def joined(features: Tensor) -> Tensor:
    """Return what is told of T texts (b, T, width): of one (b, width), of two [|u - v|, u v] (b, 2 width).

    The order of two texts does not matter.
    """
    if features.shape[1] == 1:
        return features[:, 0]
    first, second = features.unbind(1)
    return torch.cat([(first - second).abs(), first * second], dim=1)


def lora(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    encoder: str,
    layers: int | None = None,
    adapted: int | None = None,
    rank: int = 8,
    alpha: float = 16,
    targets: Sequence[str] = ("query", "value"),
    dropout: float = 0.1,
) -> Encoded:
    """Return a classifier of one text or of two, for data=text.

    encoder: see `defense.data.pretrained.place_of`. layers: the lowest of its layers that are used, and adapted:
    the highest of those that are updated; None is all. targets: names of the linear maps that are updated. Raises
    InputError where the encoder cannot be loaded, or has not as many layers.
    """
    ids = input_shape[0] == 1 and input_shape[1] <= 2  # else states, of three tokens at least
    texts = input_shape[1] if ids else input_shape[0]
    if texts > 2:
        raise InputError("data.text", f"{texts} columns", "expected one or two")
    base = pretrained(encoder, layers)
    kept = base.config.num_hidden_layers
    if rank < 1:
        raise InputError("model.rank", rank, "expected a whole number of at least 1")
    if adapted is not None and not 1 <= adapted <= kept:
        raise InputError("model.adapted", adapted, f"expected 1 to {kept}, the layers that are used, or null")
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, and needed here alone

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        layers_to_transform=list(range(kept - (adapted or kept), kept)),
    )
    shared = {id(weight): weight for weight in base.parameters()}  # of all models in this process
    network = inject_adapter_in_model(settings, copy.deepcopy(base, shared))
    fix(network)
    return Encoded(network, below=kept - (adapted or kept), texts=texts, classes=classes, dropout=dropout)


@cache
def pretrained(name: str, layers: int | None) -> Any:
    """Return the encoder, its lowest `layers` alone, which nothing may change."""
    with loading("model.encoder", name) as place, global_seed(0, "encoder"):  # draws nothing from the caller's
        from transformers import AutoConfig, AutoModel  # slow to import, and needed here alone

        config = AutoConfig.from_pretrained(place)
        has = config.num_hidden_layers
        if layers is not None and not 1 <= layers <= has:
            raise InputError("model.layers", layers, f"expected 1 to {has}, the layers of {name}, or null")
        if config.pad_token_id is None:
            raise InputError("model.encoder", name, "has no token to fill up with; expected an encoder")
        config.num_hidden_layers = layers or has
        loaded: nn.Module = AutoModel.from_pretrained(
            place, config=config, attn_implementation="sdpa", dtype=torch.float32
        )
    for part in loaded.modules():
        if isinstance(part, nn.Dropout):  # slots for members; in training they would double what a step costs
            part.p = 0.0
    return loaded.requires_grad_(False)


def fix(module: nn.Module) -> None:
    """Make every parameter that is not trained a buffer, and no buffer a part of the state_dict."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            if not value.requires_grad:
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)


def encoder_digest(settings: dict[str, Any]) -> str:
    """Return a hash of the encoder that the `settings` of a model name."""
    return content_digest(place_of(str(settings.get("encoder"))))
