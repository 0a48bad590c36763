"""Cross-validation: one network for each fold, trained on the others, and a prediction for every row by the network that has not seen it.

runs/iris/fold-1 … fold-5     a run folder each; preparation is fitted inside it, on its own training rows
runs/iris/summary.json        each figure over the folds: mean, deviation, values
runs/iris/out_of_fold.csv     row, fold, target, prediction, and the probability of each class
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nnrun.errors import InputError
from nnrun.run import Run, open_run
from nnrun.runs.folder import commit
from nnrun.several import Several, lines_of, mean_and_deviation
from nnrun.spec.experiment import FOLDED, Experiment, Split
from nnrun.spec.source import Source
from nnrun.training.head import Head
from nnrun.training.metrics import Scored, score

OUT_OF_FOLD = "out_of_fold.csv"


class Folds(Several):
    """The runs of one experiment, one for each fold.

    Args:
        count: how many folds.

    Raises:
        InputError: the split has no folds, or the folder cannot be used.
    """

    def __init__(
        self, spec: Experiment, source: Source, count: int, *, out: Path | None, resume: bool = False, allow_change: Sequence[str] = ()
    ) -> None:
        if count < 2:
            raise InputError(f"--folds {count} is no cross-validation", fix="write --folds 5")
        if spec.split.method not in FOLDED:
            raise InputError(f"--folds: split method {spec.split.method!r} has no folds", fix=f"write method {', '.join(FOLDED)}")
        if spec.split.val == "rest":
            raise InputError("--folds: split.val is the rest, and the folds leave no rest", fix="write val as a share, such as 0.2")
        super().__init__(spec, source, f"--folds {count}", out=out, resume=resume, allow_change=allow_change)
        self.count = count
        self.open_folder()
        self.summaries: list[dict[str, Any]] = []
        self.kept: dict[str, list[torch.Tensor]] = {"row": [], "fold": [], "y": [], "output": []}

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Yield what each fold is called and its run, ready to train; afterwards its outcome is kept."""
        for number in range(1, self.count + 1):
            run = self._open(number)
            yield f"fold {number}/{self.count}", run
            self._keep(number, run)
        self._finish(run)

    def told(self) -> list[str]:
        """Return the lines that say how the folds came out: each figure with its mean, its deviation and its values."""
        first = f"{self.count} folds, {self.summary['rows']} rows, each predicted by the network that has not seen it"
        return [first, *lines_of(self.summary["metrics"]["test"])]

    def _open(self, number: int) -> Run:
        written = self.spec.split.model_dump() | {"train": "rest", "test": 0, "folds": self.count, "fold": number}
        spec = self.spec.model_copy(update={"split": Split.model_validate(written), "name": f"{self.spec.name}-fold-{number}"[:64]})
        folder = self.folder / f"fold-{number}"
        again = self.resume and (folder / "config.yaml").is_file()
        return open_run(spec, self.source, out=folder, resume=again, allow_change=self.allow_change)

    def _keep(self, number: int, run: Run) -> None:
        """Remember what the best network of a fold makes of the rows that it has not seen."""
        if run.progress.best_weights:
            run.network.model.load_state_dict(run.progress.best_weights)
        test, rows = run.data.parts["test"], run.data.row_numbers["test"]
        self.summaries.append(run.summary)
        found = {"row": rows, "fold": torch.full_like(rows, number), "y": test.y.cpu(), "output": run.network.outputs(test.x).cpu()}
        for name, tensor in found.items():
            self.kept[name].append(tensor)

    def _finish(self, run: Run) -> None:
        """Write the figures over all folds, and the prediction of every row, in the order of the table.

        Args:
            run: of any fold: what its outputs mean is the same for all.
        """
        order = torch.cat(self.kept["row"]).argsort()
        row, fold, y, output = (torch.cat(tensors)[order] for tensors in self.kept.values())
        head = run.network.head
        cpu = replace(head, scale={name: tensor.cpu() for name, tensor in head.scale.items()})
        commit(self.folder / OUT_OF_FOLD, _table(cpu, row, fold, y, output).encode())
        names = list(self.summaries[0]["metrics"]["test"])
        values = {name: [summary["metrics"]["test"][name] for summary in self.summaries] for name in names}
        pooled = score(run.network.metrics, Scored.of(cpu, output, y))
        self.summary = {
            "name": self.spec.name,
            "run": str(self.folder),
            "folds": self.count,
            "rows": len(row),
            "metrics": {"test": {name: {**mean_and_deviation(found), "values": found} for name, found in values.items()}},
            "out_of_fold": {name: float(figure) for name, figure in pooled.items()},
            "notes": list(dict.fromkeys(note for summary in self.summaries for note in summary["notes"])),
            "seconds": round(sum(sum(summary["seconds"].values()) for summary in self.summaries), 3),
        }
        self.write_summary()


def _table(head: Head, row: torch.Tensor, fold: torch.Tensor, y: torch.Tensor, output: torch.Tensor) -> str:
    """Return the rows as CSV."""
    import polars

    task, predicted = head.task, head.predict(output)
    table: dict[str, Any] = {"row": row.numpy(), "fold": fold.numpy()}
    if task.classes:
        table |= {"target": [task.classes[code] for code in y], "prediction": [task.classes[code] for code in predicted]}
        shares = head.probabilities(output).numpy()
        table |= {f"p_{name}": shares[:, number] for number, name in enumerate(task.classes)}
    else:
        for number, name in enumerate(task.targets):
            end = f"_{name}" if len(task.targets) > 1 else ""
            table |= {f"target{end}": y[:, number].numpy(), f"prediction{end}": predicted[:, number].numpy()}
    text = io.BytesIO()
    polars.DataFrame(table).write_csv(text)
    return text.getvalue().decode()
