from __future__ import annotations

import pytest
import torch

from defense.data.splits import Dataset
from defense.influence.alignment import forward_derivative
from defense.influence.members import single
from defense.models.build import build
from defense.models.states import prepared
from tests.models.test_lora import LORA, batch, model_of, texts

pytestmark = pytest.mark.extra("transformers", "peft")


@pytest.mark.parametrize("number", [1, 2])
def test_texts_are_brought_through_the_lower_layers_once(encoder: str, number: int) -> None:
    split = texts(6, number)
    settings = {"encoder": encoder, "layers": 3, "adapted": 1}
    model = model_of(encoder, split, layers=3, adapted=1)
    data = Dataset(
        split, split.subset(torch.arange(4)), split, ["0", "1"], noise_known=False, given={"test": split}
    )
    found = prepared(settings, data, model)
    assert found.shape == (number, 7, 16)
    torch.testing.assert_close(model(batch(found.train)), model(batch(split)))
    assert torch.equal(batch(found.validation), batch(found.train)[:4])
    assert torch.equal(batch(found.given["test"]), batch(found.train))
    rebuilt = build({"_target_": LORA, "rank": 2, **settings}, found, seed=0)
    assert {n: v.shape for n, v in rebuilt.named_parameters()} == {n: v.shape for n, v in model.named_parameters()}
    rebuilt.load_state_dict(model.state_dict())
    torch.testing.assert_close(rebuilt.eval()(batch(found.train)), model(batch(split)))
    member, direction = single(model), {n: torch.ones_like(v) for n, v in model.named_parameters()}
    torch.testing.assert_close(
        forward_derivative(model, member, direction, batch(found.train), split.labels),
        forward_derivative(model, member, direction, batch(split), split.labels),
        atol=1e-5,
        rtol=1e-4,
    )


def test_states_are_known_by_what_they_are_made_of(encoder: str) -> None:
    split = texts(6, 1)
    data = Dataset(split, split, split, ["0", "1"], noise_known=False)
    digests = set()
    for layers, adapted in ((3, 1), (3, 2), (2, 1)):
        model = model_of(encoder, split, layers=layers, adapted=adapted)
        found = prepared({"encoder": encoder, "layers": layers, "adapted": adapted}, data, model).train.images
        assert found.digest() == found.to(torch.device("cpu")).digest()
        assert found.subset(torch.tensor([1, 0])).digest() != found.digest()
        digests.add(found.digest())
    assert len(digests | {split.images.digest()}) == 4


def test_what_cannot_be_taken_apart_is_left_and_said(
    encoder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = texts(6, 1)
    data = Dataset(split, split, split, ["0", "1"], noise_known=False)
    model = model_of(encoder, split, adapted=1)
    assert prepared({"encoder": encoder}, data, model_of(encoder, split)) is data  # all layers are updated
    monkeypatch.setattr("defense.models.states.ROOM", 1e-9)
    with caplog.at_level("INFO"):
        assert prepared({"encoder": encoder, "adapted": 1}, data, model) is data
    assert "states would take" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("defense.models.language.layers_of", lambda encoder: encoder.encoder.layer[::-1])
    with caplog.at_level("INFO"):
        assert prepared({"encoder": encoder, "adapted": 1}, data, model) is data
    assert "cannot be taken apart" in caplog.text
