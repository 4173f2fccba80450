"""Samples of every form are the same samples: tensors, arrays, Datasets, DataLoaders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import defense
from defense.errors import InputError
from tests.reference import per_sample_gradients

CHANCE = torch.Generator().manual_seed(0)
X, Y = torch.rand(10, 1, 4, 4, generator=CHANCE), torch.arange(10) % 3
X_VAL, Y_VAL = torch.rand(6, 1, 4, 4, generator=CHANCE), torch.arange(6) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)
    )


class Pairs(TorchDataset[Any]):
    """A Dataset of whatever it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        item = self.items[row]
        return item() if callable(item) else item


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "a list, labels of 8 bits": lambda x, y: [x, y.to(torch.uint8)],
    "labels of 32 bits": lambda x, y: (x, y.int()),
    "labels in a list": lambda x, y: (x, y.tolist()),
    "a table's column of labels": lambda x, y: (x, pd.Series(y.numpy())),
    "a Dataset": TensorDataset,
    "a Dataset of arrays and numbers": lambda x, y: Pairs(
        [(a.numpy(), int(b)) for a, b in zip(x, y, strict=True)]
    ),
    "a loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4),
    "a loader without batches": lambda x, y: DataLoader(
        Pairs([(x, y)]), batch_size=None, collate_fn=lambda item: item
    ),
    "a transposed tensor": lambda x, y: (x.transpose(2, 3).contiguous().transpose(2, 3), y),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_to_the_bit(form: str) -> None:
    make, model = FORMS[form], network().train()
    plain, other = [((X, Y), (X_VAL, Y_VAL)), (make(X, Y), make(X_VAL, Y_VAL))]
    pd.testing.assert_series_equal(defense.score(model, *plain), defense.score(model, *other), check_exact=True)
    assert torch.equal(*(defense.attack(model, pairs[1], eps=0.1) for pairs in (plain, other)))
    found = [defense.evaluate(model, pairs[1], suite="quick", eps=0.1) for pairs in (plain, other)]
    assert found[0] == found[1]
    assert model.training


def test_global_generators_are_left_alone() -> None:
    model = network()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    defense.score(model, DataLoader(TensorDataset(X, Y)), TensorDataset(X_VAL, Y_VAL))
    defense.evaluate(model, DataLoader(TensorDataset(X, Y)), suite="quick")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


class Words(nn.Module):
    """The mean of the embeddings of tokens, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 5), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(tokens).mean(1))
        return out


TOKENS = torch.randint(0, 20, (10, 7), generator=CHANCE)
FEATURES = torch.randn(10, 16, generator=CHANCE) * 30
INPUTS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "features (n, d)": (lambda: nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)), FEATURES),
    "tokens (n, T)": (Words, TOKENS),
    "signals (n, C, T)": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)),
        FEATURES.view(10, 2, 8),
    ),
    "pictures of any range": (network, FEATURES.view(10, 1, 4, 4)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_scores_of_any_input_are_those_of_vmap(name: str) -> None:
    torch.manual_seed(0)
    make, x = INPUTS[name]
    model = make().eval()
    expected = per_sample_gradients(model, x, Y) @ per_sample_gradients(model, x[:6], Y_VAL).mean(0)
    found = defense.score(model, (x, Y), (x[:6], Y_VAL))
    torch.testing.assert_close(torch.tensor(found.to_numpy()), expected, rtol=1e-4, atol=1e-5)


def test_tokens_of_32_bits_and_pictures_of_8_are_taken() -> None:
    model = Words().eval()
    pairs = [defense.score(model, (tokens, Y), (tokens, Y)) for tokens in (TOKENS, TOKENS.int())]
    assert pairs[0].equals(pairs[1])
    dots = (X * 255).byte()
    pairs = [defense.score(network().eval(), (x, Y), (x, Y)) for x in (dots, dots.float() / 255)]
    assert pairs[0].equals(pairs[1])


def test_results_are_by_the_ids_of_the_user() -> None:
    ids = [f"photo_{row}.png" for row in range(10)]
    model = network().eval()
    scores = defense.score(model, (X, Y), (X_VAL, Y_VAL), ids=ids)
    assert scores.index.tolist() == ids
    assert scores.nsmallest(1).index[0] == ids[int(np.argmin(scores.to_numpy()))]
    table = defense.evaluate(model, (X, Y), suite="quick", eps=0.1, per_sample=True, ids=ids)
    assert table.index.tolist() == ids
    accuracies = defense.evaluate(model, (X, Y), suite="quick", eps=0.1)
    assert {name: 100 * table[name].mean() for name in accuracies} == pytest.approx(accuracies)
    assert (table["clean"] == (table["label"] == table["prediction"])).all()
    assert table["prediction"].tolist() == model(X).argmax(1).tolist()


class Stream(IterableDataset[Any]):
    """Samples that come in no order to go by."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


PLAIN = TensorDataset(X, Y)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a shuffled loader": (
        lambda: DataLoader(PLAIN, shuffle=True),
        r"train=DataLoader with shuffle=True or a sampler: expected one that gives every sample .* in order",
    ),
    "a sampler": (lambda: DataLoader(PLAIN, sampler=RandomSampler(PLAIN)), "shuffle=True or a sampler"),
    "a sampler of batches": (lambda: DataLoader(PLAIN, batch_sampler=[[1, 0], [2]]), "or a sampler"),
    "a loader that drops": (lambda: DataLoader(PLAIN, batch_size=4, drop_last=True), "with drop_last=True"),
    "a stream": (Stream, "train=Stream: expected a pair"),
    "a loader of a stream": (lambda: DataLoader(Stream()), "with an IterableDataset"),
    "a path": (lambda: "photos/", "train=str: expected a pair .* of arrays, a map-style Dataset"),
    "no samples": (lambda: Pairs([]), "train=empty Pairs: expected one sample at least"),
    "no rows": (lambda: (X[:0], Y[:0]), r"train inputs=shape \(0, 1, 4, 4\)"),
    "other shapes": (
        lambda: Pairs([(X[0], 0), (X[1, :, :3], 1)]),
        r"train inputs=shapes \(1, 4, 4\) and \(1, 3, 4\): expected samples of one shape",
    ),
    "one-hot labels": (
        lambda: Pairs([(x, torch.eye(3)[y]) for x, y in zip(X, Y, strict=True)]),
        r"train labels=torch.float32 of shape \(10, 3\): .*labels.argmax\(1\)",
    ),
    "float labels": (
        lambda: Pairs([(x, float(y)) for x, y in zip(X, Y, strict=True)]),
        r"train labels=torch.float64 of shape \(10,\): .*labels.long\(\)",
    ),
    "no labels": (lambda: Pairs(list(X)), "train, sample 0=Tensor: expected a pair"),
    "a dict": (lambda: Pairs([{"x": X[0], "y": 0}]), "train, sample 0=dict: expected a pair"),
    "no numbers": (lambda: Pairs([(object(), 0)]), "train, sample 0, x=object: expected numbers, .*ToTensor"),
    "texts": (lambda: (np.array(["a"] * 10), Y), "train inputs=ndarray: expected numbers"),
    "objects": (lambda: (np.array([None] * 10), Y), "train inputs=ndarray: expected numbers"),
    "a broken file": (
        lambda: Pairs([(X[0], 0), lambda: open("/nowhere/a.png")]),  # noqa: SIM115
        "train, sample 1=an error: .*FileNotFoundError",
    ),
    "a random transform": (
        lambda: Pairs([lambda: (torch.rand(1, 4, 4), 0)] * 10),
        "train=Pairs: gives other samples each time, as a random transform does",
    ),
    "infinity": (lambda: (X / 0, Y), "train inputs=NaN or infinity: expected finite numbers"),
    "features of 8 bits": (lambda: (X.flatten(1).byte(), Y), "train inputs=torch.uint8: expected floats"),
}


@pytest.mark.parametrize("name", WRONG)
def test_samples_that_do_not_fit_are_one_line(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(InputError, match=said) as error:
        defense.score(network(), make(), (X_VAL, Y_VAL))
    assert len(str(error.value).splitlines()) == 1


WRONG_IDS: dict[str, tuple[Any, str]] = {
    "one twice": (["a", "b", "a", *"cdefghi"], "ids=a: is there twice"),
    "too few": (range(9), "ids=9 of them: expected 10"),
    "one missing": ([*range(9), None], "ids=NaN: expected an id for each sample"),
}


@pytest.mark.parametrize("name", WRONG_IDS)
def test_ids_that_do_not_fit_are_one_line(name: str) -> None:
    ids, said = WRONG_IDS[name]
    with pytest.raises(InputError, match=said):
        defense.score(network(), (X, Y), (X_VAL, Y_VAL), ids=ids)


@pytest.mark.parametrize(("call", "shows"), [(True, True), (False, False), (None, False)])
def test_a_bar_is_drawn_if_it_is_asked_for(
    call: bool | None, shows: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if call is not None else "0")
    monkeypatch.setenv("TERM", "xterm")
    defense.score(network(), (X, Y), (X_VAL, Y_VAL), progress=call)
    captured = capfd.readouterr()
    assert ("score ip" in captured.err) is shows
    assert captured.out == ""
