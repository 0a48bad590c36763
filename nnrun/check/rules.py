"""What an experienced colleague would say about an experiment: one small function each, registered under its code.

A rule is asked at one stage, is given what is known there, and yields a Finding for each thing that it sees.

    on="config"    the Experiment alone                     asked by check --fast, check and train
    on="data"      and the prepared data (`examined.py`)    asked by check and train
    on="batch"     and the network, on one real batch       asked by check
    on="outcome"   the predictions of a finished network    asked by train

Its severity says what follows: `error` (the result would surely be wrong or mean nothing; train stops), `warning` (a likely mistake; train
says it), `note` (worth knowing; only check says it). The first line of its docstring is its line in `nnrun list rules`, the rest is the
reason; `docs/checks.md` holds both. A config silences a rule with `ignore: [NN104]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnrun.errors import Fault, Place
from nnrun.registry import RULES, Entry

if TYPE_CHECKING:
    from torch import Tensor

    from nnrun.data.dataset import Task

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """What one rule saw.

    Args:
        evidence: what is so, with its numbers; a sentence without a full stop.
        fix: what to write instead, or to do.
        at: where in the config, such as ("layers", 3).
    """

    evidence: str
    fix: str
    at: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Advice:
    """A finding, with the rule that it is of, and where it stands in the file."""

    rule: Entry
    finding: Finding
    place: Place | None = None

    @property
    def severity(self) -> str:
        return str(self.rule.traits["severity"])

    @property
    def fault(self) -> Fault:
        """The finding as an error tells it, with what to write when it is no mistake."""
        fix = f"{self.finding.fix}; or, if it is meant, `ignore: [{self.rule.name}]`"
        return Fault(f"{self.rule.name}: {self.finding.evidence}", fix, self.place, self.finding.at)

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.finding.evidence}; {self.finding.fix}"


def advise(
    on: str, *given: Any, ignore: Collection[str] = (), place: Callable[[tuple[int | str, ...]], Place | None] = lambda at: None
) -> list[Advice]:
    """Return what the rules of a stage say, in the order of their codes.

    Args:
        given: what a rule of this stage is asked with.
        ignore: the codes of rules that are not asked.
        place: finds where a path of the config stands.
    """
    asked = [RULES[code] for code in sorted(RULES) if RULES[code].traits["on"] == on and code not in ignore]
    return [Advice(rule, finding, place(finding.at) if finding.at else None) for rule in asked for finding in rule.build(*given)]


def outcome_notes(predicted: Tensor, y: Tensor, task: Task, ignore: Collection[str] = ()) -> list[str]:
    """Return what the rules say about the predictions of a finished network."""
    return [str(one) for one in advise("outcome", predicted, y, task, ignore=ignore)]


@RULES.register("NN301", on="outcome", severity="warning")
def one_class_only(predicted: Tensor, y: Tensor, task: Task) -> Iterator[Finding]:
    """A network that gives every row the same class.

    It has learned only which class is the most frequent: its accuracy may look fair and says nothing about the inputs.
    """
    if not task.classes or len(predicted) < 2 or bool((y == y[0]).all()):
        return
    found = predicted[0]
    if bool((predicted == found).all()):
        share = float((y == found).double().mean())
        yield Finding(
            f"the network predicts one class only: {task.classes[int(found)]!r} for all {len(predicted)} rows "
            f"(right for {share:.0%} of them)",
            "scale the inputs (`preprocess: [standardize]`), lower lr, or train longer",
        )
