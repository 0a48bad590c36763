"""The one place that imports torchvision.

torchvision comes with compiled operators for the torch it was built beside. Next to another torch (a CPU-only one, say) they do not load,
and then the import itself fails: "operator torchvision::nms does not exist". nnrun uses none of those operators, only the transforms and
the downloads, which are plain Python. So the names that torchvision wants are declared first, where its own operators do not load.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from nnrun.lazy import torch

# What torchvision/_meta_registrations.py decorates without asking whether the operators are there.
_WANTED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def torchvision() -> ModuleType:
    """Return torchvision, imported so that it works beside any build of torch."""
    if not _operators_load():
        _declare()
    import torchvision.datasets
    import torchvision.transforms.v2

    return torchvision  # type: ignore[no-any-return]


def _operators_load() -> bool:
    """Load torchvision's compiled operators as its own import will; False where they belong to another torch."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    for library in (path for folder in folders or () for path in Path(folder).glob("_C.*")):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return True
    return False


@cache
def _declare() -> object:
    """Declare the wanted operators; the cache keeps the library, and so the declarations, alive."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _WANTED:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library
