"""One process is what it always was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROBE = """
import sys, torch
before = set(sys.modules)
from nnrun.cli import app
try:
    app(["train", "it.yaml", "-q"])
except SystemExit as end:
    assert not end.code
print(sorted(name for name in set(sys.modules) - before if name.startswith(("torch.distributed", "torch.nn.parallel", "torch._dynamo"))))
"""


def test_a_run_in_one_process_imports_nothing_of_many(tmp_path: Path):
    """Neither torch.distributed, beyond what torch itself imports, nor what wraps a network."""
    (tmp_path / "it.yaml").write_text("dataset: iris\nlayers: [4]\nepochs: 1\n")
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "runs/it\n[]\n"
