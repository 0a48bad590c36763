"""The benchmarks do not rot: works build, peers train, processes answer, and the page shows what the figures give.

The peers that are packages of their own are not installed here; what they share with the others is.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
import torch

from bench import table
from bench.__main__ import SHORT
from bench.jobs import board as jobs
from bench.jobs import by_hand
from bench.measure import Child, process, rounds, spread, times
from bench.peers import board as peers
from bench.peers.work import WORK, work
from tests.conftest import ROOT

HERE = ("nnrun", "notebook", "sklearn", "bare")


def test_works_are_the_experiments():
    """Each work is read with its config's own epochs, or one for pictures; those of tables are prepared, and count their steps."""
    epochs = {name: work(name).spec.epochs for name in WORK}
    assert epochs == {"iris": 100, "breast_cancer": 50, "thermometer": 3000, "digits": 20, "fashion_mnist": 1, "lenet": 1}
    tables = {name: work(name, 2) for name in WORK if name not in peers.LARGE}
    assert {name: (tuple(one.x.shape), one.steps) for name, one in tables.items()} == {
        "iris": ((100, 4), 100),
        "breast_cancer": ((341, 30), 68),
        "thermometer": ((9, 1), 2),
        "digits": ((1437, 64), 90),
    }
    assert {name for name, one in tables.items() if one.held_out} == {"breast_cancer", "thermometer"}


@pytest.mark.parametrize("name", ["iris", "thermometer"])
def test_plain_peers_train_and_say_what_the_table_wants(name: str):
    """One epoch each, of classes and of numbers: the same steps by all, and microseconds of each."""
    what = work(name, 1)
    turns = {peer: import_module(f"bench.peers.{peer}").turn(what) for peer in HERE}
    assert {turn["steps"] for turn in turns.values()} == {what.steps}
    assert all(turn["us"] > 0 and turn["processor_us"] > 0 for turn in turns.values())


def test_a_peer_answers_from_its_own_process_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each line is answered by a turn, whatever the work prints; of a process that ended, the end of what it said is told."""
    (tmp_path / "loud.py").write_text("from bench.measure import answer\nanswer(lambda: print('epoch 1') or {'steps': 3})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(Child("loud")) as child:
        assert [child.ask() for _ in range(2)] == [{"steps": 3}, {"steps": 3}]
    with (
        closing(Child("nobody", "iris")) as absent,
        pytest.raises(RuntimeError, match=r"nobody iris ended:[\s\S]*No module named nobody"),
    ):
        absent.ask()
    with pytest.raises(RuntimeError, match=r"-c raise SystemExit\(3\) ended with 3"):
        process([sys.executable, "-c", "raise SystemExit(3)"], ROOT)


def test_rounds_leave_the_first_out_and_ratios_are_made_within_one():
    """The warm-up round counts for nothing; a round in which all were slow moves no ratio."""
    found = rounds(lambda number: {"ours": 10.0 if number == 2 else 1.0, "theirs": 30.0 if number == 2 else 3.0 + (number == 0)}, 3)
    assert found == {"ours": [1.0, 10.0, 1.0], "theirs": [3.0, 30.0, 3.0]}
    assert times(found["theirs"], found["ours"]) == {"median": 3.0, "least": 3.0, "most": 3.0}
    assert spread(found["ours"]) == {"median": 1.0, "least": 1.0, "most": 10.0}


def test_jobs_are_three_commands_on_the_same_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every file that a job names is there, and the script by hand tells flowers from the table that it is given."""
    for commands in jobs.JOBS.values():
        three = commands(tmp_path)
        assert len(three) == 3
        assert all(Path(word).is_file() for command in three for word in command if isinstance(word, Path) and word != jobs.LUDWIG_PYTHON)
    monkeypatch.chdir(tmp_path)
    jobs.flowers(Path("flowers.csv"))
    assert Path("flowers.csv").read_text().splitlines()[1] == "5.1,3.5,1.4,0.2,setosa"
    torch.save({"model": by_hand.network().state_dict(), "mean": 3.5, "deviation": 2.0}, "model.pt")
    by_hand.predict("flowers.csv", "out.csv")
    assert len(Path("out.csv").read_text().splitlines()) == 1 + 150


def test_the_page_shows_the_figures_of_the_last_run():
    """Between its marks a page holds what `python -m bench.table` makes of bench/results.json, and nothing typed by hand."""
    results = json.loads(table.RESULTS.read_text())
    for name, board in table.BOARDS.items():
        page = (table.DOCS / name).read_text()
        assert table.written(page, board(results)) == page
    assert set(results["peers"]) <= set(WORK)
    assert list(table.PEERS) == list(peers.PEERS)
    assert list(table.JOBS) == list(jobs.JOBS)
    assert set(results["measured"]) >= set(SHORT) & set(results)


def test_an_aim_is_met_missed_or_not_measured():
    """The aims read the right way round: at least, at most, and the inverse of a ratio."""
    seeds = {"iris_128": {"cheaper": 27.04, "cheaper_least": 24, "cheaper_most": 30}}
    results = {"jobs": {"by_hand": {"times_nnrun": {"median": 0.5, "least": 0.4, "most": 0.8}}}, "seeds": seeds}
    lines = {line[0]: line[1:] for line in (aim.line(results) for aim in table.AIMS)}
    assert lines["the iris job: nnrun over the script by hand"] == ["≤ 1.3", "2.00 (1.25–2.50)", "**no**"]
    assert lines["128 seeds of iris: one alone over one of them"] == ["≥ 15", "27.0 (24.0–30.0)", "yes"]
    assert lines["iris: notebook over nnrun"] == ["≥ 1.8", "–", "not measured"]


def test_requirements_are_pinned_to_a_version_each():
    """The peers are the same for everyone who measures."""
    for name in ("requirements.txt", "requirements-ludwig.txt"):
        lines = [line for line in (ROOT / "bench" / name).read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        assert all("==" in line for line in lines), name
