"""How every plot looks: line styles and markers beside the colours, so that it reads in grey, and the same bytes for the same numbers.

Plots are drawn dark on white through `Figure` and Agg; pyplot and its global state are never touched. A page in dark colours inverts them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8c6d00", "#333333")  # told apart by the colour-blind too
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P")
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": 120,
    "font.size": 9,
    "grid.color": "#dddddd",
    "legend.edgecolor": "none",
    "savefig.dpi": 120,
    "text.parse_math": False,  # a class may be called $\alpha
}
SPAN_FOR_LOG = 10.0
"""A log axis serves when the largest value is this many times the smallest."""


@dataclass(frozen=True)
class Plot:
    """One plot as PNG.

    Args:
        name: of its file, `plots/NAME.png`.
        caption: what it shows, and what to look for, in a sentence or two.
        photo: whether it holds pictures, which a dark page must not invert.
        wide: whether it wants the whole width of the page.
    """

    name: str
    title: str
    caption: str
    png: bytes
    photo: bool = False
    wide: bool = False


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style, whatever the user's own matplotlibrc says, and put everything back afterwards."""
    import logging
    import warnings

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its cache is, and that it builds one
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that the font does not have
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def axes(width: float = 6.0, height: float = 3.6, *, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a new figure of a size in inches, and its axes in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, without a date or a version in it. Drawn once: `savefig` lays the figure out in a round of its own."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    file = io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, format="png")
    return file.getvalue()


def look(number: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the n-th line of a plot."""
    return {"color": COLOURS[number % 6], "linestyle": DASHES[number % 6], "marker": MARKERS[number % 6], "markersize": 4.5}


def maybe_log(axis: Axes, values: list[float]) -> bool:
    """Make the vertical axis logarithmic when that serves; return whether it did."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite or min(finite) <= 0 or max(finite) / min(finite) < SPAN_FOR_LOG:
        return False
    axis.set_yscale("log")
    plain_log(axis.yaxis, max(finite) / min(finite))
    return True


def plain_log(axis: Axis, span: float) -> None:
    """Give a logarithmic axis few ticks, with plain numbers beside them.

    Args:
        span: how many times the smallest value the largest one is.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 1000 else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def short(text: str, most: int = 18) -> str:
    """Return a user's text as one line of at most so many characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split()) or "(empty)"
    return line if len(line) <= most else line[: most - 1] + "…"
