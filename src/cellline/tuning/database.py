"""Connecting to the database that a study is kept in; its password is never told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import exc

from cellline.errors import UserError, first_line

# Workers that begin at once make the same tables; all but one fail, and find them there then.
TRIES = 5
SECONDS_BETWEEN_TRIES = 0.5

# Raised where a server is away, refuses or is out of room. Other errors are a fault of ours.
_NOT_OURS = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.ProgrammingError)


def connect(url: str, **settings: Any) -> RDBStorage:
    """Optuna's storage at a URL, with these settings of it; its tables are made if need be.

    Raises UserError when it is no URL, the driver is missing, the server can't be reached, or
    refuses.
    """
    name = name_database(url)
    try:
        engine = sqlalchemy.create_engine(url)
    except ImportError as error:
        raise UserError(
            f"{name}: its driver is not installed ({first_line(error)}). For PostgreSQL: pip "
            "install 'psycopg[binary]', and begin the URL with postgresql+psycopg://; for MySQL: "
            "pip install pymysql, and mysql+pymysql://"
        ) from error
    with told_plainly(name):
        engine.connect().close()
        engine.dispose()
        for tries_left in reversed(range(TRIES)):
            try:
                return RDBStorage(
                    # Optuna takes braces for a template's.
                    url.replace("{", "{{").replace("}", "}}"),
                    # A server that was started again meanwhile is connected to again.
                    engine_kwargs={"pool_pre_ping": True},
                    **settings,
                )
            except exc.DBAPIError:
                if not tries_left:
                    raise
                time.sleep(SECONDS_BETWEEN_TRIES)
            except RuntimeError as error:  # tables of another version of Optuna; it says what to do
                raise UserError(f"{name}: {error}") from error
    raise AssertionError("the last try returns or raises")


@contextmanager
def told_plainly(name: str) -> Iterator[None]:
    """Within, what the database `name` doesn't do is told as a UserError."""
    try:
        yield
    except (exc.DBAPIError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if not isinstance(cause, _NOT_OURS):
            raise
        assert cause.orig is not None
        raise UserError(
            f"{name} fails: {first_line(cause.orig)}. See to the server, the network, the user and "
            "the password (PostgreSQL's is best kept in ~/.pgpass, or in the file that PGPASSFILE "
            "names). Finished trials are kept, and the same command goes on from there"
        ) from error


def name_database(url: str) -> str:
    """What messages may call it: the URL without user, password and options.

    Raises UserError when it is no URL of a database.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        parsed.get_dialect()
        is_url = "@" not in (parsed.host or "")
    except (exc.ArgumentError, ValueError):
        is_url = False
    if not is_url:
        # Not quoted, nor is what raised it told: parts of a password may be in both.
        raise UserError(
            "--storage is no URL of a database that is known. Such are "
            "postgresql+psycopg://USER@HOST/DATABASE, mysql+pymysql://USER@HOST/DATABASE and "
            "sqlite:///PATH; in a password, / is written %2F and @ %40. What has no : in its "
            "first part is the path of a journal file"
        ) from None
    return str(
        sqlalchemy.URL.create(
            parsed.drivername, host=parsed.host, port=parsed.port, database=parsed.database
        )
    )
