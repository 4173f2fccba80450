from __future__ import annotations

import pytest
import torch
from torch import nn

from defense.errors import InputError
from defense.influence.members import dropout, gaussian, logits_at, masked, single
from defense.models.networks import cnn, mlp

SHAPE = {"input_shape": (2, 8, 8), "classes": 3, "mean": [0.5, 0.5], "std": [0.3, 0.3]}


def test_a_sub_network_is_the_network_with_its_units_masked() -> None:
    """The slots of the mlp are behind its ReLU: the mask is written out by hand."""
    torch.manual_seed(0)
    model, x = mlp(**SHAPE, hidden=[16]).eval(), torch.rand(5, 2, 8, 8)
    members = dropout(single(model), model, x[:2], count=4, max_rate=0.9, seed=0)
    assert members[0].masks == {}
    assert [member.weight for member in members] == [0.25] * 4
    for member in members[1:]:
        ((name, mask),) = member.masks.items()
        assert isinstance(dict(model.named_modules())[name], nn.Dropout)
        assert len(mask.unique()) == 2  # 0 and 1 / (1 - rate)
        hidden = torch.relu(model[2](model[1](model[0](x))))
        with masked(model, member):
            found = logits_at(model, member, member.parameters, x)
        torch.testing.assert_close(found, model[-1](hidden * mask))
    assert torch.equal(model(x), logits_at(model, members[0], members[0].parameters, x))


def test_without_slots_the_inputs_of_layers_are_masked() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.rand(5, 2, 8, 8)
    member = dropout(single(model), model, x[:2], count=2, max_rate=0.9, seed=1)[1]
    assert {name: tuple(mask.shape) for name, mask in member.masks.items()} == {"0": (2, 1, 1), "3": (144,)}
    with masked(model, member):
        found = model(x)
    hidden = torch.relu(model[0](x * member.masks["0"])).flatten(1)
    torch.testing.assert_close(found, model[3](hidden * member.masks["3"]))


def test_masks_depend_on_the_seed_alone_and_their_rate_is_drawn() -> None:
    model, x = mlp(**SHAPE, hidden=[4000]).eval(), torch.rand(2, 2, 8, 8)
    first, again, other = (
        dropout(single(model), model, x, count=30, max_rate=0.4, seed=seed) for seed in (0, 0, 1)
    )
    masks = [[next(iter(member.masks.values())) for member in members[1:]] for members in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(masks[0], masks[1], strict=True))
    assert not torch.equal(masks[0][0], masks[2][0])
    dropped = torch.tensor([float((mask == 0).float().mean()) for mask in masks[0]])
    assert float(dropped.max()) < 0.45
    assert 0.1 < float(dropped.mean()) < 0.3  # U(0, 0.4) has mean 0.2
    for mask, rate in zip(masks[0], dropped, strict=True):
        assert float(mask.max()) == pytest.approx(1 / (1 - float(rate)), rel=0.05)


def test_noisy_copies() -> None:
    model = cnn(**SHAPE, width=32).eval()
    members = gaussian(single(model), count=3, std=0.01, seed=0)
    for member in members:
        moves = torch.cat([(member.parameters[n] - p).flatten() for n, p in model.named_parameters()])
        assert float(moves.std()) == pytest.approx(0.01, rel=0.02)
        assert abs(float(moves.mean())) < 1e-3
    assert not torch.equal(members[0].parameters["head.weight"], members[1].parameters["head.weight"])


def test_a_pattern_chooses_parameters() -> None:
    model = cnn(**SHAPE, width=4).eval()
    member = single(model, pattern="head.*")
    assert set(member.parameters) == {"head.weight", "head.bias"}
    assert "stage1.0.weight" in member.rest
    with pytest.raises(InputError, match=r"scorer.parameters=tail.\*: matches none of stage1.0.weight"):
        single(model, pattern="tail.*")
