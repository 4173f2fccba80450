"""Functions of the user that cannot be used are refused in one line, before any compute."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from defense.errors import InputError
from defense.pipeline.load import load_run
from tests.conftest import TINY, changed

BAD = """
import torch

made = 3


def few(logits): return logits.sum(1)
def shape(logits, labels): return logits
def scalar(logits, labels): return logits.mean()
def flat(logits, labels): return (logits.argmax(1) != labels).float()
def nan(logits, labels): return logits.sum(1) * torch.nan
def together(logits, labels): return logits.sum(1) - logits.mean()
def error(logits, labels): raise KeyError("no")


def far(model, x, y, *, norm, eps, seed): return (x + 0.4).clamp(0, 1)
def outside(model, x, y, *, norm, eps, seed): return x + eps
def double(model, x, y, *, norm, eps, seed): return x.double()
def none(model, x, y, *, norm, eps, seed): pass
def no_eps(model, x, y, *, norm, seed): return x
def asks(model, x, y, *, norm, eps, seed, gamma): return x


def too_few(model, train, validation, *, objective, seed): return torch.zeros(3)
def infinite(model, train, validation, *, objective, seed): return torch.full((len(train),), torch.inf)
def whole(model, train, validation, *, objective, seed): return torch.arange(len(train))
def no_train(model, *, objective, seed): return torch.zeros(1)


def series(samples, *, budget, classes, seed): return samples["score"]
def columns(samples, *, budget, classes, seed): return samples
def some(samples, *, budget, classes, seed): return samples.assign(keep=True, weight=1.0)[1:]
def numbers(samples, *, budget, classes, seed): return samples.assign(keep=1, weight=1.0)
def label(samples, *, budget, classes, seed): return samples.assign(keep=True, weight=1.0, label=classes)
def negative(samples, *, budget, classes, seed): return samples.assign(keep=True, weight=-1.0)
def nothing(samples, *, budget, classes, seed): return samples.assign(keep=False, weight=1.0)
def no_budget(samples, *, classes, seed): return samples
"""
LINES = [  # settings, and the line that they give
    (
        ["objective._target_=margin"],
        "objective._target_=margin: expected the dotted path of a function, as my_parts",
    ),
    (
        ["objective._target_=nowhere.f"],
        r"objective\._target_=nowhere\.f: cannot be imported \(ModuleNotFoundError",
    ),
    (["objective._target_=bad_parts.f"], r"cannot be imported \(AttributeError"),
    (["objective._target_=bad_parts.made"], "expected a class or a function"),
    (["objective=own"], "objective._target_=null: expected the dotted path of a function, as my_parts.objective"),
    (
        ["objective.arguments={a: 1}"],
        "objective.arguments=.*: expected objective._target_, the function that they",
    ),
    (
        ["objective=weighted", "objective._target_=my_parts.margin"],
        r"is one of several terms; expected its weight, as in objective\.weights\.own=1",
    ),
    (
        ["objective._target_=my_parts.margin", "objective.arguments.most=1"],
        r"objective\.arguments\.most=1: is no parameter of my_parts\.margin; expected least",
    ),
    (["objective._target_=bad_parts.few"], r"does not take labels; expected few\(logits, labels\)"),
    (["objective._target_=bad_parts.shape"], r"gives torch.float32 of shape \(8, 10\); expected a float for each"),
    (
        ["objective._target_=bad_parts.scalar"],
        r"gives torch.float32 of shape \(\); expected a float for each of 8",
    ),
    (["objective._target_=bad_parts.flat"], "has no gradient by the logits; expected operations of torch"),
    (["objective._target_=bad_parts.nan"], "gives values that are not finite"),
    (["objective._target_=bad_parts.together"], "gives the first sample .* beside others and .* alone; expected"),
    (["objective._target_=bad_parts.error"], r"fails in bad_parts\.py, line \d+ \(KeyError: 'no'\)"),
    (["attack=own"], r"attack\._target_=null: expected the dotted path of a function, as my_parts\.attack"),
    (["attack._target_=bad_parts.far"], r"moved a sample by 0.4, eps is 0\.1; expected pictures in the ball"),
    (["attack._target_=bad_parts.outside"], r"left the pixel range \[0, 1\]; expected pictures in the ball"),
    (["attack._target_=bad_parts.double"], "gives torch.float64 of shape .*; expected pictures, torch.float32"),
    (["attack._target_=bad_parts.none"], "gives NoneType; expected pictures"),
    (
        ["attack._target_=bad_parts.no_eps"],
        r"does not take eps; expected no_eps\(model, x, y, \*, norm, eps, seed\)",
    ),
    (["attack._target_=bad_parts.asks"], r"asks for gamma; expected attack\.arguments\.gamma=VALUE, or a default"),
    (
        ["+evaluation.attacks.mine={_target_: bad_parts.far}"],
        r"evaluation\.attacks\.mine\._target_=bad_parts\.far: ",
    ),
    (
        ["+evaluation.attacks.mine={name: own}"],
        r"evaluation\.attacks\.mine\._target_=null: expected the dotted path",
    ),
    (["scorer=own"], r"scorer\._target_=null: expected the dotted path of a function, as my_parts\.scorer"),
    (
        ["scorer._target_=bad_parts.too_few"],
        r"gives torch.float32 of shape \(3,\); expected a float for each of 32",
    ),
    (
        ["scorer._target_=bad_parts.infinite"],
        r"gives scores that are not finite \(the score of training sample \d+",
    ),
    (["scorer._target_=bad_parts.whole"], r"gives torch.int64 of shape \(32,\); expected a float"),
    (
        ["scorer._target_=bad_parts.no_train"],
        r"does not take train, validation; expected no_train\(model, train, v",
    ),
    (["scorer=file"], "scorer.path=null: expected a .csv or .parquet file with the columns id and score"),
    (
        ["treatment=own"],
        r"treatment\._target_=null: expected the dotted path of a function, as my_parts\.treatment",
    ),
    (["treatment._target_=bad_parts.series"], r"gives a Series; expected a pandas\.DataFrame"),
    (["treatment._target_=bad_parts.columns"], "gives no column keep, weight; expected keep, label, weight"),
    (["treatment._target_=bad_parts.some"], "gives 31 rows for 32 samples, or other ids; expected the index"),
    (["treatment._target_=bad_parts.numbers"], "gives keep as int64; expected bool"),
    (["treatment._target_=bad_parts.label"], "gives label as int64; expected whole numbers from 0 to 9"),
    (["treatment._target_=bad_parts.negative"], "gives a weight that is no number, not finite or below 0"),
    (["treatment._target_=bad_parts.nothing"], "leaves no sample of a weight above 0"),
    (["treatment._target_=bad_parts.no_budget"], r"does not take budget; expected no_budget\(samples, \*, budget"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with functions of a user, that is on the path."""
    found = tmp_path_factory.mktemp("bad")
    (found / "bad_parts.py").write_text(BAD, encoding="utf-8")
    sys.path.append(str(found))
    yield found
    sys.path.remove(str(found))


@pytest.mark.parametrize(("settings", "line"), LINES, ids=[settings[-1] for settings, _ in LINES])
def test_what_cannot_be_used_is_refused_in_a_line(folder: Path, settings: list[str], line: str) -> None:
    store = folder / "store"
    with pytest.raises(InputError, match=line) as said:
        load_run(changed(*TINY, *settings, f"store={store}"))
    assert "\n" not in str(said.value)
    assert not list(store.glob("*/*"))
