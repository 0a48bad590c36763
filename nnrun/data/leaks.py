"""The leak guard: what would let the test part look better than the network is.

duplicates   the same inputs and target in two parts
groups       a value that names someone, on both sides of the split
disguise     one column alone gives the target away
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnrun.errors import DataError, Fault

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from nnrun.data.dataset import Dataset
    from nnrun.spec.experiment import Experiment

FEWEST_ROWS = 20  # below, one column may well give the target away by chance
LOOKED_AT = 20_000  # training rows that are looked at for a target in disguise
SORTED_AT_ONCE = 1 << 22
SHARES = 4  # bits of a key: of more rows than that, so many shares are compared one after another
ALMOST_ONE = 1 - 1e-9  # of a correlation


@dataclass(frozen=True)
class Leak:
    """One leak: of which kind (duplicates, groups, disguise), what is so, and what to do about it."""

    kind: str
    what: str
    fix: str


def leaks(spec: Experiment, dataset: Dataset, rows: Mapping[str, Tensor], keys: npt.NDArray[np.uint64]) -> list[Leak]:
    """Return the leaks; [] when the config says to ignore them.

    Args:
        keys: a number for each row of the dataset (N,), the same for equal ones.

    Raises:
        DataError: with all of them, when the config says `leaks: error`.
    """
    if spec.leaks == "ignore":
        return []
    found = [*_duplicates(keys, rows), *_groups(spec.split.group, dataset, rows), *_disguised(dataset, rows["train"])]
    if found and spec.leaks == "error":
        raise DataError([Fault(one.what, f"{one.fix}; or write `leaks: note`", at=("leaks",)) for one in found])
    return found


def _duplicates(keys: npt.NDArray[np.uint64], rows: Mapping[str, Tensor]) -> Iterator[Leak]:
    """Yield how many rows outside training stand in training too, with inputs and target; not where most rows come again and again."""
    import numpy as np

    if all(not len(rows[part]) for part in ("val", "test")):
        return
    shares = range(1 << SHARES if len(keys) > SORTED_AT_ONCE else 1)  # rows that are equal have equal keys, and so are in the same share
    again = 0
    for share in shares:
        ordered = np.sort(keys[_in_share(keys, None, share, len(shares))])
        again += int(np.count_nonzero(ordered[1:] == ordered[:-1]))
    if not again or (len(keys) - again) * 2 < len(keys):
        return
    same = {"val": (0, 0, 0), "test": (0, 0, 0)}  # how many, the place of the first in its part, and its twin
    for share in shares:
        train = rows["train"].numpy()[_in_share(keys, rows["train"], share, len(shares))]
        train = train[np.argsort(keys[train], kind="stable")]
        for part, (count, place, twin) in same.items() if len(train) else ():
            own = _in_share(keys, rows[part], share, len(shares))
            wanted = keys[rows[part].numpy()[own]]
            places = np.searchsorted(keys[train], wanted).clip(max=len(train) - 1)
            found = np.flatnonzero(keys[train][places] == wanted)
            if len(found) and (not count or own[found[0]] < place):
                place, twin = int(own[found[0]]), int(train[places[found[0]]])
            same[part] = (count + len(found), place, twin)
    for part, (count, place, twin) in same.items():
        if count:
            told = f"{count} of {len(rows[part])} {part} rows are" if count > 1 else f"1 of {len(rows[part])} {part} rows is"
            what = f"{told} in the training part too (row {int(rows[part][place])} is row {twin})"
            yield Leak("duplicates", what, "remove the duplicates, or keep them together with a group")


def _in_share(keys: npt.NDArray[np.uint64], rows: Tensor | None, share: int, shares: int) -> npt.NDArray[np.intp]:
    """Return which of these rows, or of all, have a key in one of so many shares, a bounded number of them at a time."""
    import numpy as np

    count = len(keys) if rows is None else len(rows)
    if shares == 1:
        return np.arange(count)
    found = []
    for start in range(0, count, SORTED_AT_ONCE):
        some = slice(start, start + SORTED_AT_ONCE)
        of = keys[some] if rows is None else keys[rows[some].numpy()]
        found.append(start + np.flatnonzero(of >> np.uint64(64 - SHARES) == share))
    return np.concatenate(found)


def _groups(name: str | None, dataset: Dataset, rows: Mapping[str, Tensor]) -> Iterator[Leak]:
    """Yield how many values of a column are both in training and outside."""
    if name is None or dataset.table is None:
        return
    texts = dataset.table.texts(name)
    known = set(texts[rows["train"].numpy()].unique())
    for part in ("val", "test"):
        shared = sorted(known & set(texts[rows[part].numpy()].drop_nulls().unique()))
        if shared:
            what = f"{len(shared)} of the {name}s in {part} are in the training part too, such as {shared[0]!r}"
            yield Leak("groups", what, "write `method: group`")


def _disguised(dataset: Dataset, train: Tensor) -> Iterator[Leak]:
    """Yield the columns of a table that give the target away by themselves, in the training rows."""
    import numpy as np

    rows = train[:LOOKED_AT].numpy()
    if len(dataset.columns) < 2 or len(rows) < FEWEST_ROWS:
        return
    x_ND, y = np.asfortranarray(dataset.x[train[:LOOKED_AT]].numpy()), dataset.y.numpy()[rows]
    targets = [y] if y.ndim == 1 else list(y.T)
    for number, column in enumerate(dataset.columns):
        values = x_ND[:, number]
        if np.isnan(values).any() or values.min() == values.max():
            continue
        for target in targets:
            told = _tells(values, target, bool(dataset.task.classes) or column.kind == "category")
            if told:
                fix = f"if it is not known before the target is, write `columns: {{{column.name}: ignore}}`"
                yield Leak("disguise", f"column {str(column)!r} alone gives the target away: {told}", fix)


def _tells(values: npt.NDArray[np.float32], target: npt.NDArray[Any], by_value: bool) -> str:
    """Return how a column (N,) determines a target (N,); "" when it does not."""
    import numpy as np

    if target.min() == target.max():
        return ""
    if by_value:
        order = np.lexsort((target, values))
        value, found = values[order], target[order]
        new = value[1:] != value[:-1]
        if bool(np.all(new | (found[1:] == found[:-1]))):  # no value stands beside two targets
            changes, different = int((found[1:] != found[:-1]).sum()), int(new.sum()) + 1
            if different * 3 <= len(values) or changes == len(np.unique(target)) - 1:
                return f"each of its {different} values stands beside one {'class' if target.dtype.kind == 'i' else 'number'} only"
        return ""
    deviations = values.std(dtype=np.float64), target.std(dtype=np.float64)
    if not all(deviations):
        return ""
    correlation = float(np.corrcoef(values.astype(np.float64), target.astype(np.float64))[0, 1])
    return f"their correlation is {correlation:.12g}" if abs(correlation) > ALMOST_ONE else ""
