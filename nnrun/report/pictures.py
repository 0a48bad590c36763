"""What a network that looks at pictures sees and mistakes: its surest mistakes, a random sheet, the filters of its first layer.

Shapes: N pictures (N, C, H, W), C is 1 or 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from nnrun.report.classes import Judged
from nnrun.report.style import Plot, axes, png, short

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Pictures = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]

ON_A_SHEET = 24
COLUMNS = 8
MOST_FILTERS = 64
SHEET_SEED = 0


def picture_plots(judged: Judged, pictures: Pictures) -> list[Plot]:
    """Return the sheets of one part.

    Args:
        pictures: rows of the part (M,) → the pictures as the dataset gives them (M, C, H, W).
    """
    surest = np.argsort(-judged.probabilities.max(1), kind="stable")
    mistakes = surest[(judged.predicted != judged.y)[surest]]
    drawn = np.random.default_rng(SHEET_SEED).permutation(len(judged.y))[:ON_A_SHEET]
    sheets = []
    if len(mistakes):
        caption = f"Of {len(mistakes)} mistakes those the network is surest of: what it says, how sure it is, and what the label says."
        sheets.append(_sheet("mistakes", "The most confident mistakes", caption, judged, pictures, mistakes[:ON_A_SHEET]))
    caption = f"{len(drawn)} rows of {judged.part}, drawn at random once and for all; ✗ marks a mistake, with the true label under it."
    return [*sheets, _sheet("sample", "Random predictions", caption, judged, pictures, np.sort(drawn))]


def _sheet(name: str, title: str, caption: str, judged: Judged, pictures: Pictures, rows: npt.NDArray[np.int64]) -> Plot:
    labels = []
    for row in rows:
        k, right = judged.predicted[row], judged.predicted[row] == judged.y[row]
        told = f"{'✓' if right else '✗'} {short(judged.classes[k], 13)} {judged.probabilities[row, k]:.0%}"
        labels.append(told if right else f"{told}\ntrue: {short(judged.classes[judged.y[row]], 13)}")
    return Plot(
        name, f"{title}, {judged.part}", caption, _mosaic([_shown(one) for one in pictures(rows)], labels, COLUMNS), photo=True, wide=True
    )


def filters(model: nn.Module, shape: Sequence[int]) -> list[Plot]:
    """Return the weights of the first layer as pictures, when it looks at pictures; else nothing.

    Args:
        shape: of one picture (C, H, W) as the network or, before it was flattened, the dataset has it.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)), None)
    if first is None or len(shape) != 3 or shape[0] not in (1, 3):
        return []
    weight = first.weight.detach().cpu().double().numpy()
    if isinstance(first, nn.Linear) and first.in_features == int(np.prod(shape)):
        weight = weight.reshape(-1, *shape)
    if weight.ndim != 4 or weight.shape[1] not in (1, 3) or weight.shape[2:] == (1, 1):
        return []
    shown = [_shown(one, around=float(np.abs(one).max())) for one in weight[:MOST_FILTERS]]
    caption = "Grey is 0, light is positive, dark is negative; each filter by its own scale."
    caption += f" The first {MOST_FILTERS} of {len(weight)}." if len(weight) > MOST_FILTERS else ""
    columns = COLUMNS if len(shown) <= 16 else 2 * COLUMNS
    return [Plot("filters", "Filters of the first layer", caption, _mosaic(shown, [""] * len(shown), columns), photo=True)]


def _shown(picture: npt.NDArray[Any], *, around: float = 0.0) -> npt.NDArray[Any]:
    """Return a picture (C, H, W) as (H, W) or (H, W, 3) in 0 … 1: bytes by 255, other numbers by their own range, or evenly around 0."""
    low, high = (0.0, 255.0) if picture.dtype == np.uint8 else (-around, around) if around else (float(picture.min()), float(picture.max()))
    scaled = (picture - low) / (high - low or 1.0)
    return scaled[0] if len(scaled) == 1 else scaled.transpose(1, 2, 0)


def _mosaic(pictures: Sequence[npt.NDArray[Any]], labels: Sequence[str], columns: int) -> bytes:
    """Return pictures side by side, each with its label above, in one pair of axes: a pair for each would take seconds."""
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    tall = height / width
    above = 0.3 if any(labels) else 0.0
    inch = max(6.4 / columns, 0.8) if not any(labels) else 1.15
    figure, (axis,) = axes(columns * 1.06 * inch, lines * (tall + above + 0.06) * inch)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = (number % columns) * 1.06, (number // columns) * (tall + above + 0.06)
        place = (left, left + 1, top + above + tall, top + above)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=place, interpolation="nearest")
        axis.text(left + 0.5, top + above - 0.03, label, ha="center", va="bottom", fontsize=6.5, in_layout=False)
    axis.set_xlim(-0.03, columns * 1.06 - 0.03)
    axis.set_ylim(lines * (tall + above + 0.06), -0.02)
    axis.set_axis_off()
    return png(figure)
