"""Where a study is kept: in a journal, or in a database that Optuna knows by its URL."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback as RetryCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import exc

from cellline.errors import UserError, first_line
from cellline.host.files import name_in_errors
from cellline.host.progress import say
from cellline.tuning.journal import Journal, check_journal

STUDY = "lr-and-batch-size"
JOURNAL = "journal.log"

# A trial that kills each of its workers, by its memory perhaps, is given up after six.
MAX_RETRIES = 5

# A busy worker may miss some heartbeats: a step may hold Python's lock for seconds, a server may
# need a minute to restart. A trial takes many minutes; two more to notice a dead worker don't
# matter.
BEAT_SECONDS = 10
GRACE_SECONDS = 120


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
    return connect(where) if is_url(where) else Journal(Path(where), retry_trial)


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
        with suppress(exc.IntegrityError, exc.ProgrammingError):
            return Database(url)
        # Of workers that create the tables together, all but one fail; now the tables are there.
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
    """Turn errors of the storage at `where` into UserErrors; OSErrors name its journal."""
    name = name_storage(where)
    try:
        with name_in_errors(Path(name)):
            yield
    # The last is Optuna's, where it can't even note that a trial has failed.
    except (exc.DBAPIError, StorageInternalError, UnboundLocalError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, exc.DBAPIError):
            cause = cause.__cause__ or cause.__context__
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
