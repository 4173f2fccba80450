from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from defense.config.choices import Harm, Source
from defense.config.schema import Data
from defense.data.labels import classes_of, labels_of
from defense.data.load import load
from defense.data.pretrained import place_of
from defense.data.text import Texts, read_records, read_table
from defense.errors import InputError
from tests.conftest import data as default_data
from tests.texts import write_given, write_reviews

pytestmark = pytest.mark.extra("transformers")


def settings(path: str, encoder: str, **changes: Any) -> Data:
    usual: dict[str, Any] = {
        "source": Source.text,
        "path": path,
        "target": "label",
        "text": ["text"],
        "tokenizer": encoder,
        "length": 8,
        "harm": Harm.none,
        "train_size": 40,
        "validation_size": 10,
        "test_size": 20,
    }
    return default_data(**usual | changes)


def test_a_text_becomes_its_tokens_cut_and_filled_up(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text('label\ttext\n0\tbad word0\n1\tgood "word1"\n0\tword0 word1 word2 word3\n1\tunheard\n')
    spec = settings(str(path), encoder, length=3, train_size=None, validation_path=str(path), test_path=str(path))
    data = load(replace(spec, validation_size=4, test_size=4), seed=0)
    words = {"pad": 0, "unknown": 1, "good": 2, "bad": 6, "word0": 10, "word1": 11, "word2": 12}
    assert data.shape == (1, 1, 3)
    assert data.train.images.take(torch.arange(4)).tolist() == [
        [[[words["bad"], words["word0"], 0]]],
        [[[words["good"], 1, words["word1"]]]],  # a quote is a character like others
        [[[words["word0"], words["word1"], words["word2"]]]],
        [[[1, 0, 0]]],
    ]
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.test.ids.tolist() == [8, 9, 10, 11]


def test_one_file_is_split_and_two_texts_stand_side_by_side(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "pairs.tsv"
    rows = [f"word{i % 20}\t{'same' if i % 3 else 'other'}\tgood word{i % 7}" for i in range(70)]
    path.write_text("\n".join(["first\tmeaning\tsecond", *rows]))
    spec = settings(str(path), encoder, text=["first", "second"], target="meaning")
    data = load(spec, seed=0)
    assert data.shape == (1, 2, 8)
    assert data.class_names == ["other", "same"]
    ids = [set(split.ids.tolist()) for split in data.splits.values()]
    assert [len(each) for each in ids] == [40, 10, 20]
    assert len(set.union(*ids)) == 70
    taken = data.train.images.take(torch.arange(40))
    assert taken.dtype == torch.int64
    assert taken[:, 0, 0, 0].tolist() == [10 + i % 20 for i in data.train.ids.tolist()]
    assert (taken[:, 0, 1, 0] == 2).all()
    assert data.train.labels.tolist() == [int(i % 3 > 0) for i in data.train.ids.tolist()]


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "many.tsv"
    path.write_text("\n".join(["label\ttext", *(f"{i % 11}\tword{i}" for i in range(77))]))
    spec = settings(str(path), encoder, train_size=44, validation_size=11, test_size=22)
    assert load(spec, seed=0).class_names == [str(c) for c in range(11)]


def test_texts_are_told_apart_by_their_content() -> None:
    tokens = torch.arange(24).view(4, 2, 3)
    texts = Texts(tokens)
    assert len(texts) == 4
    assert torch.equal(texts.subset(torch.tensor([2, 0])).tokens, tokens[[2, 0]])
    assert texts.digest() == Texts(tokens.clone()).digest() != Texts(tokens.view(4, 1, 6)).digest()


def test_given_samples_are_halved(tmp_path: Path, encoder: str) -> None:
    given = write_given(tmp_path / "dev.json", 12)
    spec = settings(
        write_reviews(tmp_path / "reviews.tsv", 80),
        encoder,
        given_path=given,
        given_key="sst2",
        given_text=["sentence"],
    )
    data = load(spec, seed=0)
    assert set(data.given) == {"validation", "test"}
    assert sorted(data.given["validation"].ids.tolist() + data.given["test"].ids.tolist()) == list(range(80, 92))
    for half in data.given.values():
        assert half.labels.bincount().tolist() == [3, 3]
        assert half.labels.tolist() == [i % 2 for i in half.ids.tolist()]


def test_an_installed_package_may_carry_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_tiny_encoder" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert place_of("some-tiny-encoder") == str(folder)
    assert place_of(str(folder)) == str(folder)


FIRST = "label\ttext\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FIRST.encode() + "0\tcaf\u00e9\n".encode("latin-1"), "not in UTF-8: byte 0xe9 at position 16"),
        (b"label\tsentence\n0\tbad\n", "no column 'text' in it; it has label, sentence"),
        (b"", "no column 'label' in it"),
        (b"label,text\n0,bad\n", "no column 'label' in it; it has label,text; expected tabs between columns"),
        (b"text\ttext\tlabel\nbad\tgood\t0\n", "has two columns named text; expected a name for each"),
        (b"label\ttext\tlabel \n0\tgood\t1\n", "has two columns named label; expected a name for each"),
        (FIRST.encode(), "no row in it"),
        (FIRST.encode() + b"0\tbad\n1\t \n", "line 3 has nothing in column 'text'"),
        (FIRST.encode() + b"0\tbad\n1\n", "line 3 has 1 cells; expected 2"),
        (FIRST.encode() + b"0\t" + 200_000 * b"a", "not a readable table (field larger than field limit"),
        (None, "expected a file of text (No such file or directory)"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "reviews.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(str(path), "data.path", ["label", "text"])
    assert str(caught.value).startswith(f"data.path={path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mark_of_byte_order_and_other_ends_of_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.tsv"
    path.write_bytes(b"\xef\xbb\xbflabel\ttext\r\n1\tgood\r\n  \r\n\r\n")
    assert read_table(str(path), "data.path", ["label", "text"]) == [{"label": "1", "text": "good"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "no-such-encoder"}, "data.tokenizer=no-such-encoder: no folder, installed package"),
        ({"target": "stars"}, "no column 'stars' in it; it has label, text"),
        ({"text": []}, "data.text=[]: expected one column of text, or two"),
        ({"text": ["text", "text", "text"]}, "expected one column of text, or two"),
        ({"path": "nowhere.tsv"}, "data.path=nowhere.tsv: no such path"),
        ({"test_path": "OTHER"}, "sample 1 has label '7'; expected one of 0, 1"),
        ({"given_path": "GIVEN", "given_key": "qqp"}, "data.given_key=qqp: not in"),
        ({"given_path": "GIVEN", "given_key": "sst2"}, "no 'text' in record 1; it has sentence, label"),
        ({"given_path": "GIVEN", "given_key": "sst2", "given_text": ["a", "b"]}, "expected 1 columns"),
        ({"given_path": "OTHER"}, "sample 1 has label '7'"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = write_reviews(tmp_path / "reviews.tsv", 80)
    other = tmp_path / "other.tsv"
    other.write_text(FIRST + "7\tgood\n")
    places = {"OTHER": str(other), "GIVEN": write_given(tmp_path / "dev.json", 12)}
    changes |= {name: places[value] for name, value in changes.items() if value in ("OTHER", "GIVEN")}
    with pytest.raises(InputError) as caught:
        load(settings(**{"path": path, "encoder": encoder} | changes), seed=0)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"sst2": 1}',
        '{"sst2": [1]}',
        '{"sst2": [{"text": " ", "label": 1}]}',
    ],
)
def test_given_records_that_cannot_be_read_are_one_line(tmp_path: Path, encoder: str, content: str) -> None:
    path = tmp_path / "dev.json"
    path.write_text(content)
    reviews = write_reviews(tmp_path / "reviews.tsv", 80)
    with pytest.raises(InputError, match=r"^data\.given_path="):
        load(settings(reviews, encoder, given_path=str(path), given_key="sst2"), seed=0)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["Good", "good", "bad"], "column label has Good (2 rows) and good (1 rows): one class in two spellings"),
        (["1", "1.0", "0"], "column label has 1 (2 rows) and 1.0 (1 rows): one class in two spellings"),
        (["yes", "no", "-"], "column label has the value - in 1 rows, a word for no value; expected a class"),
    ],
)
def test_a_class_too_many_is_refused(labels: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        classes_of([labels[0], *labels], "label", "data.path", "my.tsv")
    assert said in str(caught.value)


def test_blanks_around_a_label_are_none_of_it() -> None:
    labels = [" yes", "no ", "yes"]
    classes = classes_of(labels, "label", "data.path", "my.tsv")
    assert classes == ["no", "yes"]
    assert labels_of(labels, classes, "data.path", "my.tsv").tolist() == [1, 0, 1]


def test_a_class_with_a_single_text_is_named(tmp_path: Path, encoder: str) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text(FIRST + "odd\tword1\n" + "good\tword2\nbad\tword3\n" * 40)
    with pytest.raises(InputError, match=r"data\.path=.*reviews\.tsv, column label: one sample has the label odd"):
        load(settings(str(path), encoder), seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "good", "text": "bad", "label": 1}]', "not a readable JSON file (two values named text)"),
        ('{"sst2": [{"text": "a", "label": 1}], "sst2": []}', "not a readable JSON file (two values named sst2)"),
        ('[{"text": null, "label": 1}]', "record 1 has nothing in column 'text'; expected text"),
        ('[{"text": "a", "label": 1}, {"text": ["a"], "label": 1}]', "record 2 has a list or an object in 'text'"),
    ],
)
def test_records_that_are_not_one_text_a_column_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "dev.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_records(str(tmp_path / "dev.json"), "data.given_path", "sst2", ["label", "text"])
    assert said in str(caught.value)
