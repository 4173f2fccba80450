"""Numbers that are not finite are an error that names the sample, not a score."""

from __future__ import annotations

from torch import Tensor

from defense.data.splits import Split


def finite(values: Tensor, split: Split, rows: slice, what: str) -> Tensor:
    """Return `values` (b, ...) of the samples at `rows` of `split`.

    Raises FloatingPointError, as in "`what` 17 is not finite", with the id of the first sample if they are not.
    """
    good = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
    if not bool(good.all()):
        first = split.ids[rows][int((~good).nonzero()[0])]
        raise FloatingPointError(f"{what} {int(first)} is not finite")
    return values
