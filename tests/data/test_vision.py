"""torchvision can be imported beside any torch."""

from __future__ import annotations

import subprocess
import sys


def test_torchvision_imports_in_a_fresh_process() -> None:
    """Its datasets and its transforms work through the one place that imports it, and the operators are declared only once."""
    code = (
        "import torch\n"
        "from nnrun.data.vision import torchvision\n"
        "assert torchvision() is torchvision()\n"
        "import torchvision.datasets, torchvision.transforms.v2 as v2\n"
        "assert torchvision.datasets.FashionMNIST\n"
        "assert v2.Resize((4, 4))(torch.zeros(1, 8, 8)).shape == (1, 4, 4)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
