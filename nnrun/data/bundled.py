"""The datasets that scikit-learn brings along, read from its own files.

scikit-learn is not imported for them: that alone costs more than a second. The values, the feature names and the class names are those of
its loaders, to the bit.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from nnrun.errors import EnvironmentFault

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
WINE = (
    "alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids nonflavanoid_phenols proanthocyanins color_intensity hue "
    "od280/od315_of_diluted_wines proline"
)
MEASURES = ["radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry"]
MEASURES += ["fractal dimension"]
BREAST_CANCER = tuple(form.format(name) for form in ("mean {}", "{} error", "worst {}") for name in MEASURES)
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def classes_file(name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Return inputs (N, D), class numbers (N,) and class names of a file whose first line is `N,D,class,class,…`."""
    import numpy as np

    with _file(name).open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        head = next(reader)
        rows = [[float(cell) for cell in row] for row in reader]
    values = np.array(rows)
    return values[:, :-1], values[:, -1].astype(np.int64), tuple(head[2:])


def number_file(name: str, separator: str | None = None) -> npt.NDArray[np.float64]:
    """Return the numbers of a compressed file without a header."""
    import numpy as np

    with gzip.open(_file(name), "rt", encoding="utf-8") as lines:
        return np.loadtxt(lines, delimiter=separator)


def _file(name: str) -> Path:
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / "datasets" / "data" / name
        if path.is_file():
            return path
    raise EnvironmentFault(f"scikit-learn's data file {name} is not there", fix="reinstall scikit-learn (pip install scikit-learn)")
