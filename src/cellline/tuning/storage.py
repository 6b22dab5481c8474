"""Storage of a study: a journal, or a database that Optuna knows by its URL.

A journal is a file on a shared disk that workers append each operation to; Optuna writes and
replays it. Both kinds tell Optuna which running trials have lost their worker; it fails them and
tries their parameters again.
"""

import fcntl
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback as RetryCallback
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exc

from cellline.errors import UserError, first_line
from cellline.host.files import damaged, name_in_errors, open_regular, open_unlinked
from cellline.host.locking import try_lock
from cellline.host.progress import say

STUDY = "lr-and-batch-size"
JOURNAL = "journal.log"
# The beginning of a journal: Optuna's operations are lines of JSON with this key first.
FIRST = b'{"op_code":'

# A path with one of these may be a misspelt URL, or PostgreSQL's "host=... password=...".
OF_ADDRESSES = set(":=@")

# A trial that kills its workers, perhaps by its memory, is given up after six attempts.
MAX_RETRIES = 5

# A server may need a minute to restart. A trial takes many, so two to notice a dead worker are few.
BEAT_SECONDS = 10
GRACE_SECONDS = 120


class JournalLock(BaseJournalFileLock):
    """The lock on a journal and those on its running trials: bytes of one file beside it.

    The system drops POSIX record locks when their holder dies. (Optuna's own lock file outlives a
    killed holder; others then wait for half a minute.) A process may take its own lock again.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        # Kept open: closing any file object of it would drop all locks that this process holds.
        path = journal.with_name(f".{journal.name}.lock")
        self.file = open(path, "a", opener=open_unlinked)  # noqa: SIM115
        self.depth = 0
        self.own_trials: set[int] = set()

    def acquire(self) -> bool:
        """Wait for the journal's lock; remove a last line that a writer left unfinished."""
        if self.depth == 0:
            fcntl.lockf(self.file, fcntl.LOCK_EX, 1, 0)
            with self.journal.open("r+b") as file:
                lines = file.read()
                whole = lines.rfind(b"\n") + 1
                if cut := len(lines) - whole:
                    file.truncate(whole)
                    os.fsync(file.fileno())
                    say(f"the last line of {self.journal} was unfinished: removed its {cut} bytes")
        self.depth += 1
        return True

    def release(self) -> None:
        """Drop the journal's lock, unless it was taken more than once."""
        self.depth -= 1
        if self.depth == 0:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 0)

    def take_trial(self, trial_id: int) -> bool:
        """Lock a trial until this process ends; False if it is locked already."""
        # A record lock never excludes its own process.
        if trial_id in self.own_trials or not try_lock(self.file, 1, 1 + trial_id):
            return False
        self.own_trials.add(trial_id)
        return True


class Journal(JournalStorage, BaseHeartbeat):
    """A journal whose running trials are locked; to Optuna, one without a lock is stale."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = JournalLock(path)
        super().__init__(JournalFileBackend(str(path), self.lock))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a trial; given a template, only add it."""
        with get_lock_file(self.lock):
            trial_id = super().create_new_trial(study_id, template_trial)
            if template_trial is None:
                self.lock.take_trial(trial_id)
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin a waiting trial, or end one; False if another worker was faster."""
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

    def get_heartbeat_stale_trial_callback(self) -> RetryCallback:
        """Return what Optuna calls for a stale trial that it has failed."""
        return RetryCallback(MAX_RETRIES)


class Database(RDBStorage):
    """A database that a trial's worker sends heartbeats to."""

    def __init__(self, url: str) -> None:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            super().__init__(
                # Optuna treats braces as placeholders of a template.
                url.replace("{", "{{").replace("}", "}}"),
                # Reconnect after a restart of the server.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=BEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryCallback(MAX_RETRIES),
            )

    def record_heartbeat(self, trial_id: int) -> None:
        """Send a heartbeat, if the server is up: an error would end Optuna's thread for good."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def load_study(where: str | Path) -> optuna.Study | None:
    """Load the study in a storage, if there is one, to read it; create neither journal nor lock.

    Raises UserError if the storage is damaged, can't be reached or, for a path, does not exist.
    """
    with plain_errors(where):
        storage = open_storage(where, read_only=True)
        try:
            study = optuna.load_study(study_name=STUDY, storage=storage)
        except KeyError:
            return None
        check_readable(study, where)
        return study


def check_readable(study: optuna.Study, where: str | Path) -> None:
    """Raise UserError if settings or trials of a study are not what Optuna wrote."""
    try:
        _ = study.user_attrs, study.get_trials(deepcopy=False)
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the study in {name_storage(where)} is damaged ({first_line(error)}): put a copy "
            "back, or name another --storage"
        ) from error


def open_storage(where: str | Path, *, read_only: bool = False) -> BaseStorage:
    """Open the database at a URL, or the journal at a path; within `plain_errors`.

    Raises UserError, and changes nothing, if what is at the path is not a journal.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if is_url(where):
        return connect(str(where))
    path = Path(where)
    if path.exists():
        check_journal(path)
    elif read_only:
        raise UserError(f"--storage {where}: there is no such file")
    try:
        return JournalStorage(JournalFileBackend(str(path))) if read_only else Journal(path)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"a line is not an operation of Optuna's: {error!r}") from error


def check_journal(path: Path) -> None:
    """Raise UserError unless a file is a journal, or the beginning of one, or empty."""
    head = None
    if path.is_file():
        with open(path, "rb", opener=open_regular) as file:
            head = file.read(len(FIRST))
    if head is None or not FIRST.startswith(head):
        raise UserError(
            f"{path} is not the journal of a study, and was left as it is: name another --storage"
        )


def connect(url: str) -> Database:
    """Connect to a database; within `plain_errors`.

    Raises UserError if its driver is missing or refuses the URL, or if another version of Optuna
    made its tables.
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
            f"{name}: its driver is not installed ({first_line(error.__cause__ or error)}), such "
            "as pip install 'psycopg[binary]' for postgresql+psycopg://"
        ) from error
    except (exc.ArgumentError, UnicodeError) as error:
        raise no_address() from error
    except RuntimeError as error:  # another version's tables; its message says what to do
        raise UserError(f"{name}: {error}") from error


@contextmanager
def plain_errors(where: str | Path) -> Iterator[None]:
    """Turn errors of a database into UserErrors; name the journal in OSErrors."""
    name = name_storage(where)
    try:
        with name_in_errors(Path(name)):
            yield
    except (exc.DBAPIError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if not isinstance(cause, exc.DBAPIError) or cause.orig is None:
            raise
        advice = (
            "Check the server, the network, the user and the password (PostgreSQL's is best kept "
            "in ~/.pgpass). Finished trials are kept; rerun to resume"
        )
        if name.startswith("sqlite"):
            advice = "Check the file and its disk: put a copy back, or name another --storage"
        raise UserError(f"{name} fails: {first_line(cause.orig)}. {advice}") from error


def name_storage(where: str | Path) -> str:
    """Name of a storage in messages: its path, or its URL without user, password and options.

    Raises UserError if it looks like the address of a database, but is none.
    """
    if not is_url(where):
        return str(where)
    with suppress(exc.ArgumentError, ValueError):
        url = sqlalchemy.make_url(str(where))
        url.get_dialect()
        # In a misspelt URL, a part of the password may stand where other things do.
        rest = (url.host or "") + ("" if url.drivername.startswith("sqlite") else str(url.database))
        if not {"@", "="} & set(rest):
            shown = (url.drivername, None, None, url.host, url.port, url.database)
            return str(sqlalchemy.URL.create(*shown))
    raise no_address()


def no_address() -> UserError:
    """The error for what is no URL; it quotes nothing, as any part may be that of a password."""
    return UserError(
        "--storage is not the URL of a database, such as postgresql+psycopg://USER@HOST/DATABASE "
        "or sqlite:///PATH; in a password, write / as %2F and @ as %40. If it is the path of a "
        "journal, with ':', '=' or '@' in it, begin it with / or ./"
    )


def is_url(where: str | Path) -> bool:
    """Return True if it names a database, not a file; also for a misspelt URL with a password."""
    if isinstance(where, Path) or (where.startswith(("/", "./", "../")) and "//" not in where):
        return False
    return where != where.strip() or bool(OF_ADDRESSES & set(where))
