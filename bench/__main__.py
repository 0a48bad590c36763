"""Run the scoreboard: `python -m bench [PART]… [--full] [--only NAME…] [--repeats N]`; prints JSON, also to bench/results.json.

Without a part, those of the short run, some ten minutes; with `--full` all of them but `gpu`, and all peers. Parts that are not run keep
the figures of their last run: each says when that was. `python -m bench.table --write` brings the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os

from nnrun.cli import WAITING

os.environ.update(WAITING | os.environ)  # as the program does, before torch is imported

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import epoch, gpu, health, neighbour, pictures, process, saving, scaling, seeds, stream, sweep, tables
from bench.jobs import board as jobs
from bench.measure import machine, moment, versions
from bench.peers import board as peers
from bench.table import RESULTS

SHORT = ("peers", "jobs", "start", "process", "tables", "seeds", "sweep")
FEWER = ("epoch", "neighbour", "tables", "pictures")
"""Parts of which a round takes long: half as many rounds."""

PACKAGES = ("nnrun", "torch", "numpy", "polars", "scikit-learn", "skorch", "keras", "lightning", "jsonargparse")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that are told; one before them warms up")
    parser.add_argument("--full", action="store_true", help="with the slow peers, and without a PART all parts")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these works of `peers`, or peers of `jobs` and `start`")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="the size of the table of `stream`")
    chosen = parser.parse_args()
    options = {"full": chosen.full, "only": chosen.only}
    parts: dict[str, Callable[[int], dict[str, Any]]] = {
        "peers": partial(peers.main, **options),
        "jobs": partial(jobs.jobs, **options),
        "start": partial(jobs.start, **options),
        "process": process.main,
        "epoch": epoch.main,
        "saving": saving.main,
        "seeds": seeds.main,
        "sweep": sweep.main,
        "scaling": scaling.main,
        "health": health.main,
        "tables": tables.main,
        "stream": partial(stream.main, gigabytes=chosen.gigabytes),
        "pictures": pictures.main,
        "neighbour": neighbour.main,
        "gpu": gpu.main,
    }
    if unknown := set(chosen.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    for name in chosen.parts or ([part for part in parts if part != "gpu"] if chosen.full else SHORT):
        when = moment()
        figures = parts[name](max(3, chosen.repeats // 2) if name in FEWER else chosen.repeats)
        print(json.dumps({name: figures}, indent=2), flush=True)
        keep(name, figures, when)


def keep(name: str, figures: dict[str, Any], when: dict[str, Any]) -> None:
    """Put the figures of a part into bench/results.json; of `peers`, `jobs` and `start`, works and peers that were not run stay."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results |= {"machine": machine(), "versions": versions(*PACKAGES) | jobs.ludwig_version()}
    results.setdefault("measured", {})[name] = when
    results[name] = (results.get(name, {}) if name in ("peers", "jobs", "start") else {}) | figures
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
