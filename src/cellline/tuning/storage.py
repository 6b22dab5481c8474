"""Where a study is kept: in a journal, or in a database that Optuna knows by its URL.

Both tell Optuna which running trials have lost their worker; it fails them and calls `retry_trial`.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback as RetryCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc

from cellline.errors import UserError, first_line
from cellline.host.progress import say
from cellline.tuning.journal import JournalLock, check_journal

Retry = Callable[[optuna.Study, FrozenTrial], None]

STUDY = "lr-and-batch-size"
JOURNAL = "journal.log"

# A trial that kills each of its workers, by its memory perhaps, is given up after six.
MAX_RETRIES = 5

# A busy worker may miss some heartbeats: a step may hold Python's lock for seconds, a server may
# need a minute to restart. A trial takes many minutes; two more to notice a dead worker don't
# matter.
BEAT_SECONDS = 10
GRACE_SECONDS = 120

# Raised by Optuna where it can't even note that a trial has failed.
_OPTUNAS = (AssertionError, UnboundLocalError)


class Journal(JournalStorage, BaseHeartbeat):
    """A journal whose running trials are locked; to Optuna, one without lock is stale."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal. Raises UserError when it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = JournalLock(path)
        backend = JournalFileBackend(str(path), self.lock)
        with get_lock_file(self.lock):
            check_journal(path)
        super().__init__(backend)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a trial; with a template only add it."""
        with get_lock_file(self.lock):
            trial_id = super().create_new_trial(study_id, template_trial)
            if template_trial is None:
                self.lock.take_trial(trial_id)
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin a trial that waits, or end one; False where another worker was faster."""
        with get_lock_file(self.lock):
            is_set = super().set_trial_state_values(trial_id, state, values)
            if is_set and state == TrialState.RUNNING:
                self.lock.take_trial(trial_id)
        return is_set

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        with get_lock_file(self.lock):
            running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            ids = [trial._trial_id for trial in running]
            return [trial_id for trial_id in ids if self.lock.take_trial(trial_id)]

    def record_heartbeat(self, trial_id: int) -> None:
        """Do nothing: the lock says enough."""

    def get_heartbeat_interval(self) -> int:
        """Return any number of seconds, so that Optuna looks for stale trials."""
        return 3600

    def get_heartbeat_stale_trial_callback(self) -> Retry:
        """Return what Optuna calls for a stale trial that it has failed."""
        return retry_trial


class Database(RDBStorage):
    """A database that a trial's worker sends heartbeats to."""

    def __init__(self, url: str) -> None:
        """Connect, and create the tables if they are missing."""
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            super().__init__(
                # Optuna takes braces for those of a template.
                url.replace("{", "{{").replace("}", "}}"),
                # Reconnect after a restart of the server.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=BEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=retry_trial,
            )

    def record_heartbeat(self, trial_id: int) -> None:
        """Send a heartbeat, if the server is up: an error would end Optuna's thread for good."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def retry_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the parameters of a trial whose worker was killed, at most MAX_RETRIES times."""
    killed = 1 + len(trial.system_attrs.get("retry_history", ()))
    outcome = "given up" if killed > MAX_RETRIES else "its parameters are tried again"
    say(f"trial {trial.number}: its worker was killed (number {killed} that it cost); {outcome}")
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        RetryCallback(MAX_RETRIES)(study, trial)


def open_storage(where: str) -> BaseStorage:
    """Open the database at a URL, or the journal at a path; within `plain_errors`."""
    return connect(where) if is_url(where) else Journal(Path(where))


def load_study(where: str) -> optuna.Study | None:
    """Load the study in a storage, to read it: neither a journal nor locks are created.

    Raises UserError when the storage is damaged, can't be reached or, for a path, does not exist.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with plain_errors(where):
        if is_url(where):
            storage: BaseStorage = connect(where)
        elif Path(where).exists():
            check_journal(Path(where))
            storage = JournalStorage(JournalFileBackend(where))
        else:
            raise UserError(f"--storage {where}: there is no such file")
        with suppress(KeyError):
            return optuna.load_study(study_name=STUDY, storage=storage)
    return None


def connect(url: str) -> Database:
    """Connect to a database; within `plain_errors`.

    Raises UserError when its driver is missing, or another version of Optuna made its tables.
    """
    name = name_storage(url)
    try:
        # Of workers that create the tables together, all but one fail, at each of a few steps.
        for _ in range(4):
            with suppress(exc.IntegrityError, exc.ProgrammingError):
                return Database(url)
            time.sleep(0.2)
        return Database(url)
    except ImportError as error:
        raise UserError(
            f"{name}: its driver is not installed ({first_line(error.__cause__ or error)}). For "
            "PostgreSQL: pip install 'psycopg[binary]', and begin the URL with "
            "postgresql+psycopg://; for MySQL: pip install pymysql, and mysql+pymysql://"
        ) from error
    except RuntimeError as error:  # another version's tables; its message says what to do
        raise UserError(f"{name}: {error}") from error


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """Turn errors of a database into UserErrors; name the journal in OSErrors."""
    name = name_storage(where)
    try:
        yield
    except (OSError, exc.DBAPIError, StorageInternalError, *_OPTUNAS) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError | exc.DBAPIError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, OSError):
            cause.filename = cause.filename or name
            raise cause from None
        if cause is None or cause.orig is None:
            raise
        raise UserError(
            f"{name} fails: {first_line(cause.orig)}. Check the server, the network, the user and "
            "the password (PostgreSQL's is best kept in ~/.pgpass, or in the file that PGPASSFILE "
            "names). Finished trials are kept; rerun to resume"
        ) from error


def name_storage(where: str) -> str:
    """Return what messages call a storage: its URL without user, password and options, or its path.

    Raises UserError when it looks like a URL, but is not that of a database.
    """
    if not is_url(where):
        return where
    try:
        url = sqlalchemy.make_url(where)
        url.get_dialect()
        is_known = "@" not in (url.host or "")
    except (exc.ArgumentError, ValueError):
        is_known = False
    if not is_known:
        # Neither the URL nor the error is quoted: either may hold parts of a password.
        raise UserError(
            "--storage is not the URL of a database, such as "
            "postgresql+psycopg://USER@HOST/DATABASE, mysql+pymysql://USER@HOST/DATABASE or "
            "sqlite:///PATH; in a password, write / as %2F and @ as %40. Without a colon in its "
            "first part, it is the path of a journal"
        ) from None
    return str(sqlalchemy.URL.create(url.drivername, None, None, url.host, url.port, url.database))


def is_url(where: str) -> bool:
    """Return whether it names a database, not a file; true also if misspelt with a password."""
    return re.match(r"[A-Za-z0-9+]+:", where) is not None
