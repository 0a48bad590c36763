"""The study of a sweep: where it is stored, whether it is the one that is meant, and which of its trials nobody works on any more.

By default it is a journal in the sweep's folder; `--storage` names a database instead. Who works on a trial is seen by a lock that its
worker holds in the folder, which the system frees when the worker ends, however it ends. A worker that has another folder, on a machine
that does not see this one, is known by its heartbeat in the database.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from nnrun.compare import differences
from nnrun.errors import CheckpointError, EnvironmentFault, InputError, not_writable
from nnrun.runs.folder import commit

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
KEPT_IN = "storage.json"
WORKERS = ".workers"
DEFINED = "nnrun"
BEAT, GONE = 30, 120
"""Seconds between two heartbeats in a database, and after which a worker without one counts as gone."""
URLS = "write sqlite:///sweep.db, postgresql://USER@HOST/DATABASE or mysql+pymysql://USER@HOST/DATABASE"
TRIES = 8
"""How often a database is opened: two workers that make its tables at once hinder each other."""


class OtherRowsError(CheckpointError):
    """The rows are not those that the sweep was started with, which no trial can help."""


def require_optuna() -> None:
    """Import Optuna, and keep it quiet.

    Raises:
        InputError: it is not installed.
    """
    try:
        import cmaes  # noqa: F401
        import optuna
    except ImportError:
        raise InputError("sweeps are built on Optuna, which is not installed", fix="pip install 'nnrun[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def open_study(folder: Path, storage: str | None, definition: Mapping[str, Any], direction: Literal["minimize", "maximize"]) -> Study:
    """Return the study of a folder, made if it is not there; the caller holds the folder's lock.

    Args:
        storage: the URL of a database; None is the journal.
        definition: what the study is about; its `digests` are those of the data and of the split.

    Raises:
        InputError: it is another study, or the URL is not one.
        OtherRowsError: it is about other rows.
        EnvironmentFault: the database cannot be used.
    """
    import optuna

    url = _hidden(storage) if storage else None
    _refuse_elsewhere(folder, url)
    with _quietly():
        kept = _database(storage, folder) if storage else _journal(folder)
        study = optuna.create_study(storage=kept, study_name=folder.resolve().name, direction=direction, load_if_exists=True)
        known = study.user_attrs.get(DEFINED)
        if known is None:
            study.set_user_attr(DEFINED, dict(definition))
    commit(folder / KEPT_IN, (json.dumps({"storage": url}) + "\n").encode())
    if known is None:
        return study
    was, now = ({key: value for key, value in one.items() if key != "digests"} for one in (known, definition))
    differs = differences([was, now])
    if differs:
        key, (then, now) = next(iter(differs.items()))
        others = f" and {len(differs) - 1} more" if len(differs) > 1 else ""
        what = f"{folder} holds another sweep: {key} is {_short(then)} there, and {_short(now)} here{others}"
        raise InputError(what, fix="give another --out, or go back to what it was started with")
    refuse_other_rows(known.get("digests", {}), definition["digests"], definition["config"]["dataset"]["name"])
    return study


def refuse_other_rows(was: Mapping[str, str], now: Mapping[str, str], dataset: str) -> None:
    """Refuse to try more configs on other rows, or on another split of them: their scores would mean something else.

    Raises:
        OtherRowsError: with the digests of both.
    """
    for name, digest in was.items():
        if now[name] != digest:
            digests = f"digest {digest[:12]} then, {now[name][:12]} now"
            what = f"the {name} of dataset {dataset!r} has changed since the sweep was started ({digests})"
            raise OtherRowsError(what, fix="restore it, or give another --out")


def _refuse_elsewhere(folder: Path, url: str | None) -> None:
    """Refuse to begin another study in a folder whose study is kept somewhere else."""
    file = folder / KEPT_IN
    if file.is_file():
        known = json.loads(file.read_text("utf-8"))["storage"]
        if known != url:
            fix = f"give --storage {known}" if known else "leave --storage out"
            raise InputError(f"the study of {folder} is kept in {known or f'its {JOURNAL}'}", fix=f"{fix}, or give another --out")


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _journal(folder: Path) -> BaseStorage:
    from optuna.storages import JournalStorage

    from nnrun.sweep.journal import Journal

    return JournalStorage(Journal(folder / JOURNAL))


def _database(url: str, folder: Path) -> BaseStorage:
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage

    local = url.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": 100}} if local else {"pool_pre_ping": True}
    for left in reversed(range(TRIES)):
        try:
            return RDBStorage(url, engine_kwargs=options, heartbeat_interval=BEAT, grace_period=GONE)
        except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise InputError(f"--storage: {_first(error)}", fix=URLS) from None
        except ImportError as error:
            raise InputError(f"--storage {_hidden(url)}: {error}", fix="pip install the driver of that database") from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            if not left:
                fix = "check that the server runs, its address, and who may write there"
                raise EnvironmentFault(f"--storage {_hidden(url)} cannot be used: {_first(error)}", fix=fix) from None
            time.sleep(0.2 * (TRIES - left))
    raise AssertionError  # the last try has returned or raised


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _hidden(url: str) -> str:
    """Return a URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise InputError(f"--storage: {_first(error)}", fix=URLS) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Worker:
    """This process among those that work on a study.

    Args:
        folder: of the sweep.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.study, self._folder = study, folder / WORKERS
        self.name = uuid.uuid4().hex[:12]
        try:
            self._folder.mkdir(exist_ok=True)
            self._held = FileLock(self._folder / self.name)
            self._held.acquire()
        except OSError as error:
            raise not_writable(self._folder, error) from None

    def together(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which what is told of many trials reaches the disk at once, where the study is a journal."""
        from nnrun.sweep.journal import Journal

        journal = getattr(self.study._storage, "_backend", None)
        return journal.together() if isinstance(journal, Journal) else contextlib.nullcontext()

    def begun(self) -> Trial:
        """Begin a new trial, which says from its first moment on who works on it."""
        from optuna.trial import Trial, TrialState, create_trial

        template = create_trial(state=TrialState.RUNNING, user_attrs={"worker": self.name})
        number = self.study._storage.create_new_trial(self.study._study_id, template_trial=template)
        return Trial(self.study, number)

    def left(self) -> Trial | None:
        """Return a trial that was begun, and nobody works on, now by this worker; the caller holds the folder's lock."""
        from optuna.trial import Trial, TrialState

        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = set(self._stale()) if running else set()
        found = next((one for one in running if self._is_left(one, stale)), None)
        if found is None:
            return None
        trial = Trial(self.study, found._trial_id)
        trial.set_user_attr("worker", self.name)
        return trial

    def _is_left(self, trial: FrozenTrial, stale: set[int]) -> bool:
        worker = trial.user_attrs["worker"]
        if worker == self.name:
            return False
        if not (self._folder / worker).exists():  # of a worker that has another folder
            return trial._trial_id in stale
        held = FileLock(self._folder / worker)
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        held.release()
        return True

    def _stale(self) -> list[int]:
        from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled

        storage = self.study._storage
        return (
            storage._get_stale_trial_ids(self.study._study_id)
            if is_heartbeat_enabled(storage) and isinstance(storage, BaseHeartbeat)
            else []
        )

    @contextlib.contextmanager
    def beating(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Let the database know from time to time that somebody works on trials."""
        from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled

        storage = self.study._storage
        if not (isinstance(storage, BaseHeartbeat) and is_heartbeat_enabled(storage)):
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while True:
                for trial in trials:
                    with contextlib.suppress(Exception):  # the database may be away for a while; the trial goes on
                        storage.record_heartbeat(trial._trial_id)
                if ended.wait(BEAT):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self) -> None:
        """Leave."""
        self._held.release()
