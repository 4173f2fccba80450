from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import Members
from defense.data.splits import Dataset, Split
from defense.data.text import Texts
from defense.errors import InputError
from defense.influence.alignment import forward_derivative
from defense.influence.datainf import datainf_direction
from defense.influence.members import members_of, single
from defense.influence.per_sample import vectorized
from defense.models.build import build, source_of
from defense.models.language import joined, pretrained
from tests.conftest import scorer
from tests.texts import tiny_encoder

pytestmark = pytest.mark.extra("transformers", "peft")

LORA = "defense.models.language.lora"


def texts(count: int, number: int, *, length: int = 7) -> Split:
    """Return texts of 2 to `length` tokens, filled up with zeros."""
    chance = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (count, number, length), generator=chance)
    lengths = torch.randint(2, length + 1, (count, number, 1), generator=chance)
    labels = torch.arange(count) % 2
    return Split(torch.arange(count), Texts(tokens.where(torch.arange(length) < lengths, 0)), labels, labels)


def model_of(encoder: str, split: Split, *, moved: bool = True, **settings: Any) -> nn.Module:
    """Return a classifier in eval mode, its updates away from their start at zero."""
    data = Dataset(split, split, split, ["0", "1"], noise_known=False)
    model = build({"_target_": LORA, "encoder": encoder, "rank": 2, **settings}, data, seed=0)
    chance = torch.Generator().manual_seed(1)
    if moved:
        for value in model.parameters():
            value.data += 0.3 * torch.randn(value.shape, generator=chance)
    return model.eval()


def batch(split: Split) -> Tensor:
    return split.images.take(torch.arange(len(split)))


@pytest.mark.parametrize("number", [1, 2])
def test_the_updates_are_products_of_low_rank_beside_the_pretrained_maps(encoder: str, number: int) -> None:
    from transformers import AutoModel

    split = texts(5, number)
    model = model_of(encoder, split, layers=2, adapted=1, alpha=6)
    plain = AutoModel.from_pretrained(encoder).eval()
    plain.encoder.layer = plain.encoder.layer[:2]
    state = model.state_dict()
    for name in ("query", "value"):
        a, b = (state[f"encoder.encoder.layer.1.attention.self.{name}.lora_{x}.default.weight"] for x in "AB")
        getattr(plain.encoder.layer[1].attention.self, name).weight.data += 6 / 2 * b @ a
    expected = []
    for sample in batch(split)[:, 0]:
        means = []
        for ids in sample:
            real = ids[ids != 0]  # no mask needed
            states = plain(input_ids=real[None]).last_hidden_state[0].detach().double().numpy()
            mean = states.mean(0)
            means.append((mean - mean.mean()) / np.sqrt(mean.var() + 1e-5) / 4)
        features = means[0] if number == 1 else np.concatenate([abs(means[0] - means[1]), means[0] * means[1]])
        expected.append(state["head.weight"].double().numpy() @ features + state["head.bias"].double().numpy())
    np.testing.assert_allclose(model(batch(split)).detach().numpy(), expected, atol=2e-5)


def test_it_begins_as_the_pretrained_encoder_and_what_fills_up_does_not_matter(encoder: str) -> None:
    split = texts(5, 2)
    model = model_of(encoder, split, moved=False)
    x = batch(split)
    longer = F.pad(x, (0, 4))
    torch.testing.assert_close(model(longer), model(x))
    torch.testing.assert_close(model(x.flip(2)), model(x))  # the order of two texts does not matter
    for name, value in model.named_parameters():
        assert value.count_nonzero() == 0 or "lora_B" not in name


def test_only_the_updates_and_the_head_are_trained_and_kept(encoder: str) -> None:
    split = texts(6, 1)
    model = model_of(encoder, split, adapted=2)
    names = set(dict(model.named_parameters()))
    assert set(model.state_dict()) == names
    assert {name.split(".layer.")[1][0] for name in names if "lora" in name} == {"1", "2"}
    assert sum(value.numel() for value in model.parameters()) == 2 * 2 * 2 * (16 * 2) + 16 * 2 + 2
    before = {name: value.clone() for name, value in model.named_buffers()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model.train()(batch(split)), split.labels).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(value.grad is not None for value in model.parameters())


def test_models_share_an_encoder_and_no_weight_that_is_trained(encoder: str) -> None:
    split = texts(4, 1)
    first, second = (model_of(encoder, split, moved=False) for _ in range(2))
    owned = {value.data_ptr() for value in first.parameters()}
    assert not owned & {value.data_ptr() for value in second.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weights = [dict(each.named_buffers())["encoder.embeddings.word_embeddings.weight"] for each in (first, second)]
    assert weights[0].data_ptr() == weights[1].data_ptr()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("members", [Members.single, Members.dropout, Members.gaussian])
def test_derivatives_are_those_of_single_gradients(encoder: str, number: int, members: Members) -> None:
    split = texts(9, number)
    model = model_of(encoder, split)
    spec = scorer(members=members, count=3, max_rate=0.5)
    chance = torch.Generator().manual_seed(2)
    found = members_of(model, batch(split)[:2], spec, (), seed=0)
    for member in found:
        direction = {n: torch.randn(v.shape, generator=chance) for n, v in member.parameters.items()}
        derivative = forward_derivative(model, member, direction, batch(split), split.labels)
        expected = [one_by_one(model, member, direction, split, row) for row in range(len(split))]
        torch.testing.assert_close(derivative, torch.stack(expected), atol=1e-4, rtol=1e-4)
    if members is Members.dropout:
        assert [bool(member.masks) for member in found] == [False, True, True]


def one_by_one(model: nn.Module, member: Any, direction: dict[str, Tensor], split: Split, row: int) -> Tensor:
    """Return u . grad loss of one sample by reverse mode, without vmap."""
    from defense.influence.members import logits_at, masked

    parameters = {name: value.clone().requires_grad_() for name, value in member.parameters.items()}
    x, label = split.images.take(torch.tensor([row])), split.labels[row : row + 1]
    with masked(model, member):
        loss = F.cross_entropy(logits_at(model, member, parameters, x), label)
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return torch.stack([(g * direction[n]).sum() for n, g in zip(parameters, gradients, strict=True)]).sum()


def test_gradients_by_vmap_and_datainf_are_those_of_a_loop(encoder: str) -> None:
    split = texts(7, 2)
    model = model_of(encoder, split)
    member = single(model)
    x, damping = batch(split), 0.1
    each: dict[str, list[Tensor]] = {name: [] for name in member.parameters}
    for row in range(len(split)):
        model.zero_grad()
        F.cross_entropy(model(x[row : row + 1]), split.labels[row : row + 1]).backward()
        for name, value in model.named_parameters():
            assert value.grad is not None
            each[name].append(value.grad.clone())
    by_name = {name: torch.stack(values) for name, values in each.items()}
    for name, value in vectorized(model, member, x, split.labels).items():
        torch.testing.assert_close(value, by_name[name], atol=1e-5, rtol=1e-4)
    gradient = {name: values.mean(0) for name, values in by_name.items()}
    found = datainf_direction(model, member, split, gradient, damping=damping, batch_size=3, gradients=vectorized)
    for name, g in by_name.items():
        flat, v = g.flatten(1).double(), gradient[name].flatten().double()
        strength = damping * flat.square().sum(1).mean() / flat.shape[1]
        shares = (flat @ v) / (strength + flat.square().sum(1))
        expected = (v - (shares[:, None] * flat).mean(0)) / strength
        torch.testing.assert_close(found[name].flatten().double(), expected, atol=1e-3, rtol=1e-3)


def test_the_key_of_a_training_knows_the_content_of_the_encoder(encoder: str, tmp_path: Path) -> None:
    other = tiny_encoder(tmp_path / "other")
    assert source_of({"_target_": LORA, "encoder": encoder}) == source_of({"_target_": LORA, "encoder": other})
    larger = tiny_encoder(tmp_path / "larger", layers=4)
    assert source_of({"_target_": LORA, "encoder": encoder}) != source_of({"_target_": LORA, "encoder": larger})


def test_one_text_is_told_by_itself() -> None:
    features = torch.rand(3, 1, 4)
    assert torch.equal(joined(features), features[:, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "no-such-encoder"}, r"model\.encoder=no-such-encoder: no folder, installed package"),
        ({"layers": 4}, r"model\.layers=4: expected 1 to 3"),
        ({"layers": 2, "adapted": 3}, r"model\.adapted=3: expected 1 to 2"),
        ({"targets": ["q_lin"]}, r"model\._target_=.*Target modules .*q_lin"),
        ({"rank": 0}, r"model\.rank=0: expected a whole number of at least 1"),
    ],
)
def test_a_model_that_cannot_be_is_one_line(
    encoder: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        model_of(settings.pop("encoder", encoder), texts(4, 1), **settings)
    assert re.match(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_one_line(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defense.data.pretrained.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[text\]"'):
        pretrained.__wrapped__(encoder, None)
