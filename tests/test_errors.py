from __future__ import annotations

import pickle

import pytest

from defense.errors import InputError


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data.test_size", None, "data.test_size=null: expected a number"),
        ("seed", None, "seed=None: expected a number"),  # an argument in Python
        ("data.path", "B\udce4r/\ud800 ü", r"data.path=B\xe4r/\ud800 ü: expected a number"),
        ("data.path", "two\nlines", "data.path=two lines: expected a number"),
    ],
)
def test_an_error_is_one_line_that_can_be_typed_and_printed(field: str, value: object, said: str) -> None:
    error = InputError(field, value, "expected a number")
    assert str(error) == said
    assert str(pickle.loads(pickle.dumps(error))) == said
    str(error).encode()
