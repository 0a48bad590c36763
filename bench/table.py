"""The scoreboard as Markdown, made of bench/results.json: `python -m bench.table` prints it, `--write` puts it into docs/benchmarks.md.

The page has it between two marks, and a test holds that it is what the figures give: nobody types it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
DOCS = RESULTS.parent.parent / "docs"
BEGIN, END = "<!-- scoreboard: made by python -m bench.table --write -->", "<!-- end of the scoreboard -->"

Results = Mapping[str, Any]
PEERS = {
    "nnrun": "nnrun",
    "notebook": "notebook",
    "sklearn": "scikit-learn",
    "skorch": "skorch",
    "keras": "Keras",
    "lightning_defaults": "Lightning as it is",
    "lightning": "Lightning quiet",
    "lightning_batches": "Lightning tuned",
    "bare": "bare loop",
    "arithmetic": "arithmetic",
}
JOBS = {
    "nnrun": "nnrun, everything at its defaults",
    "nnrun_no_report": "nnrun --no-report",
    "by_hand": "a script by hand",
    "lightning_cli": "LightningCLI",
    "ludwig": "Ludwig",
}


@dataclass(frozen=True)
class Aim:
    """What is aimed at.

    Args:
        what: in words.
        at: where the figure stands in the results.
        least: what the median must reach; with `inverse` the figure is 1 / median, and this is what it may not exceed.
    """

    what: str
    at: tuple[str, ...]
    bound: float
    most: bool = False
    inverse: bool = False

    def line(self, results: Results) -> list[str]:
        """Return the cells of its row."""
        sign = "≤" if self.most else "≥"
        found = self._figure(results)
        if found is None:
            return [self.what, f"{sign} {self.bound:g}", "–", "not measured"]
        met = found["median"] <= self.bound if self.most else found["median"] >= self.bound
        return [self.what, f"{sign} {self.bound:g}", ratio(found), "yes" if met else "**no**"]

    def _figure(self, results: Results) -> dict[str, float] | None:
        found: Any = results
        for key in self.at:
            holder, found = found, found.get(key, {})
        if not isinstance(found, Mapping):  # a plain median, with its spread beside it
            found = {"median": found, "least": holder[f"{key}_least"], "most": holder[f"{key}_most"]}
        if not found:
            return None
        if self.inverse:
            return {"median": 1 / found["median"], "least": 1 / found["most"], "most": 1 / found["least"]}
        return dict(found)


def over(work: str, peer: str, bound: float) -> Aim:
    """Return the aim to be so many times as fast as a peer."""
    return Aim(f"{work}: {PEERS[peer]} over nnrun", ("peers", work, "peers", peer, "times_nnrun"), bound)


AIMS = (
    over("iris", "lightning_defaults", 8),
    over("iris", "lightning", 8),
    over("thermometer", "lightning_defaults", 25),
    over("thermometer", "lightning", 25),
    over("iris", "notebook", 1.8),
    over("thermometer", "notebook", 1.8),
    over("fashion_mnist", "notebook", 2.8),
    over("iris", "sklearn", 1),
    over("digits", "sklearn", 1),
    *(
        Aim(f"{work}: nnrun over the bare loop", ("peers", work, "peers", "bare", "times_nnrun"), 1.05, most=True, inverse=True)
        for work in ("iris", "thermometer", "breast_cancer", "digits", "fashion_mnist", "lenet")
    ),
    Aim("the iris job: nnrun over the script by hand", ("jobs", "by_hand", "times_nnrun"), 1.3, most=True, inverse=True),
    Aim("the iris job: LightningCLI over nnrun", ("jobs", "lightning_cli", "times_nnrun"), 4),
    Aim("`nnrun --help`, s", ("start", "nnrun", "seconds"), 0.25, most=True),
    Aim("`nnrun list`, s", ("process", "list", "seconds"), 0.5, most=True),
    Aim("`nnrun show RUN`, s", ("process", "show", "seconds"), 0.5, most=True),
    Aim("a fault of a config, s", ("process", "config_fault", "seconds"), 0.7, most=True),
    Aim("128 seeds of iris: one alone over one of them", ("seeds", "iris_128", "cheaper"), 15),
    Aim("trials of iris: one after another over side by side", ("sweep", "iris", "faster"), 8),
    Aim("trials of digits: one after another over side by side", ("sweep", "digits", "faster"), 8),
    Aim("lenet, batches of 1,024: one process with one thread over two", ("scaling", "lenet_1024", "two_over_one_thread"), 1.7),
    Aim("lenet: one process of torchrun over a plain one", ("scaling", "lenet_64", "cost_of_torchrun"), 1.05, most=True),
    Aim("1M × 30: `prepare` over polars reading the CSV", ("tables", "spread", "prepare_over_read"), 3, most=True),
    Aim("1M rows: polars and a bare forward pass over `predict`, CSV", ("tables", "spread", "predict_csv_speed"), 0.5),
    Aim("1M rows: the same, Parquet", ("tables", "spread", "predict_parquet_speed"), 0.5),
)


def number(value: float) -> str:
    """Return a number with three digits that mean something: 0.00741, 2.35, 23.5, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    digits = 2
    while value < 10 ** (2 - digits) and digits < 6:
        digits += 1
    return f"{value:.{digits if value < 10 else 1}f}"


def ratio(found: Mapping[str, float]) -> str:
    """Return a median with its least and most; of one that is next to nothing, that it is."""
    if found["most"] < 0.01:
        return "< 0.01"
    return f"{number(found['median'])} ({number(found['least'])}–{number(found['most'])})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def heading(results: Results) -> list[str]:
    """Return on what all this was measured."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    where = f"{machine.get('processor', 'a processor')}, {machine['cores']} cores, Python {machine['python']}"
    return [f"{where}; {versions or 'torch ' + machine['torch']}."]


def training(results: Results) -> list[str]:
    """Return the tables of the part `peers`: microseconds of a step, and times nnrun's."""
    works = results.get("peers", {})
    if not works:
        return []
    names = [name for name in PEERS if any(name in figures["peers"] for figures in works.values())]

    def rows(key: str, said: Any, names: Sequence[str]) -> list[list[str]]:
        return [
            [work, *(said(one["peers"][name][key]) if key in one["peers"].get(name, {}) else "–" for name in names)]
            for work, one in works.items()
        ]

    dates = [
        [work, one["measured"]["date"], f"{one['measured']['load']:g}", str(one["rounds"]), str(one["threads"])]
        for work, one in works.items()
    ]
    return [
        "### Training: how many times as long as nnrun a peer takes for a step",
        "",
        *table(["", *(PEERS[name] for name in names[1:])], rows("times_nnrun", ratio, names[1:])),
        "",
        "### Training: the same of the processor's time",
        "",
        *table(["", *(PEERS[name] for name in names[1:])], rows("processor_times_nnrun", ratio, names[1:])),
        "",
        "### Training: µs a step",
        "",
        *table(["", *(PEERS[name] for name in names)], rows("us", lambda found: number(found["median"]), names)),
        "",
        *table(["", "measured", "load before", "rounds", "threads"], dates),
        "",
    ]


def processes(results: Results) -> list[str]:
    """Return the tables of the parts `jobs` and `start`."""
    lines = []
    titles = {"jobs": "### The iris job: train, evaluate, predict, three commands", "start": "### Start-up: `--help`"}
    head = ["", "seconds", "processor seconds", "times nnrun's", "the same of the processor", "measured"]
    for part, title in titles.items():
        found = {name: results[part][name] for name in JOBS if name in results.get(part, {})}
        rows = [
            [
                JOBS[name] if part == "jobs" else JOBS[name].partition(",")[0],
                *(ratio(one[key]) for key in ("seconds", "processor_seconds")),
                *(ratio(one[key]) if name != "nnrun" else "1" for key in ("times_nnrun", "processor_times_nnrun")),
                one["measured"]["date"],
            ]
            for name, one in found.items()
        ]
        lines += [title, "", *table(head, rows), ""] if rows else []
    return lines


def large(results: Results) -> list[str]:
    """Return the table of the part `tables`."""
    found = results.get("tables", {}).get("spread", {})
    said = {
        "prepare_and_epoch": "reading, preparing and one epoch, s",
        "prepare_and_epoch_over_read_and_bare": "the same over polars reading and a bare loop",
        "predict_csv_rows_a_second": "`predict` from CSV, rows a second",
        "predict_parquet_rows_a_second": "`predict` from Parquet, rows a second",
    }
    rows = [[words, ratio(found[key])] for key, words in said.items() if key in found]
    return ["### A table of 1,000,000 × 30", "", *table(["", "nnrun"], rows), ""] if rows else []


def scaling(results: Results) -> str:
    """Return the tables of the part `scaling`: what two processes gave, and what more would."""
    found = results.get("scaling", {})
    if not found:
        return "Not measured."
    ways = {name: found[name] for name in found if name.startswith("lenet_")}
    said = {
        "two_over_one_thread": "one process, one thread, over two processes",
        "two_over_two_threads": "one process, two threads, over two processes",
        "cost_of_torchrun": "one process of torchrun over a plain one",
    }
    measured = [[words, *(ratio(one[key]) for one in ways.values())] for key, words in said.items()]
    steps = [[size, number(1e3 * seconds)] for size, seconds in found["step_seconds"].items()]
    would = [
        [
            one["network"],
            f"{one['batch']:,}",
            f"{one['devices']:,}",
            f"{one['rows_each']:,}",
            number(one["compute_ms"]),
            number(one["exchange_ms"]),
            number(one["times_one_device"]),
        ]
        for one in found["projected"]
    ]
    costs = found["costs"]
    when = results["measured"]["scaling"]
    return "\n".join(
        [
            f"Measured {when['date']}, load before {when['load']:g}.",
            "",
            *table(["lenet, an epoch of 8,192 rows", *(f"batches of {name.partition('_')[2]}" for name in ways)], measured),
            "",
            *table(["rows of a step, one thread", "ms"], steps),
            "",
            f"The gradients of lenet have {costs['gradient_bytes']:,.0f} bytes, its checkpoint {costs['checkpoint_bytes']:,.0f}; "
            f"the order of an epoch takes {number(1e9 * costs['order_seconds_a_row'])} ns a row.",
            "",
            *table(["network", "whole batch", "devices", "rows each", "compute, ms", "exchange, ms", "times one device"], would),
        ]
    )


def scoreboard(results: Results) -> str:
    """Return all of it."""
    aims = table(["", "aim", "measured", "met"], [aim.line(results) for aim in AIMS])
    lines = [*heading(results), "", *training(results), *processes(results), *large(results), "### Aims", "", *aims]
    return "\n".join(lines)


BOARDS = {"benchmarks.md": scoreboard, "scaling.md": scaling}
"""Page of the documentation → what is written into it."""


def written(page: str, board: str) -> str:
    """Return the page with this board between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{board}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print the boards, or write them into their pages."""
    results = json.loads(RESULTS.read_text())
    for name, board in BOARDS.items():
        if "--write" in sys.argv[1:]:
            (DOCS / name).write_text(written((DOCS / name).read_text(), board(results)))
        else:
            print(board(results), end="\n\n")


if __name__ == "__main__":
    main()
