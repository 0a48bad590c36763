"""Run the scoreboard: `python -m bench [PART]… [--repeats N]`; prints JSON, also to bench/results.json."""

from __future__ import annotations

import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the program does, before torch is imported

import argparse
import platform
from pathlib import Path


def main() -> None:
    """Run the parts that were asked for, or all."""
    from bench import epoch, health, neighbour, pictures, process, saving, seeds, steps, stream, sweep, tables

    parts = {
        "process": process.main,
        "steps": steps.main,
        "epoch": epoch.main,
        "saving": saving.main,
        "seeds": seeds.main,
        "sweep": sweep.main,
        "health": health.main,
        "tables": tables.main,
        "stream": lambda repeats: stream.main(repeats, chosen.gigabytes),
        "pictures": pictures.main,
        "neighbour": neighbour.main,
    }
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="the size of the table of `stream`")
    chosen = parser.parse_args()
    import torch

    figures = {"machine": {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}}
    for name in chosen.parts or parts:
        figures[name] = parts[name](max(3, chosen.repeats // 2) if name in ("epoch", "neighbour", "tables", "pictures") else chosen.repeats)
        print(json.dumps({name: figures[name]}, indent=2), flush=True)
    Path("bench/results.json").write_text(json.dumps(figures, indent=2) + "\n")


main()
