import warnings
from pathlib import Path

import optuna
import pytest
from postgres import PASSWORD, Server

from cellline.errors import UserError
from cellline.tuning.database import connect, name_database


@pytest.mark.parametrize(
    ("url", "told"),
    [
        # A port that nobody listens at.
        ("postgresql+psycopg://me:SECRET@127.0.0.1:1/study", "127.0.0.1:1/study fails: .*refused"),
        ("postgresql+psycopg://127.0.0.1:1/x?password=SECRET", "127.0.0.1:1/x fails: .*refused"),
        (
            "postgresql+psycopg://me:{SECRET}@127.0.0.1:1/study",
            "127.0.0.1:1/study fails: .*refused",
        ),
        ("postgresql+psycopg://127.0.0.1:1/x?pasword=SECRET", "fails: invalid connection option"),
        (
            "mssql+pymssql://me:SECRET@host/study",
            "driver is not installed .No module named 'pymssq",
        ),
        ("nosuch://me:SECRET@host/study", "no URL of a database that is known"),
        # Misspelt, so that a part of the password stands where other things do.
        ("postgresql://me:SEC@RET@host/study", "no URL of a database"),
        ("postgresql://me:SEC:RET/study", "no URL of a database"),
        ("postgresql:/me:SECRET@host/study", "no URL of a database"),
        ("sqlite:///missing/study.db", "sqlite:///missing/study.db fails: unable to open"),
    ],
)
def test_what_can_not_be_reached_is_told_without_the_password(url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        connect(url)
    assert "SEC" not in str(refused.value)
    assert "RET" not in str(refused.value)
    assert not list(Path().iterdir())


def test_a_wrong_password_is_told_with_where_to_put_it(postgresql: Server) -> None:
    with pytest.raises(UserError, match=r"password authentication failed.*~/\.pgpass") as refused:
        connect(postgresql.url("postgres", "SECRET"))
    assert "SECRET" not in str(refused.value)


def test_tables_of_another_version_of_optuna_are_told(postgresql: Server) -> None:
    url = postgresql.make_database("older")
    connect(url)
    postgresql.execute("older", "UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    with pytest.raises(UserError, match=r"/older: .*optuna storage upgrade") as refused:
        connect(url)
    assert PASSWORD not in str(refused.value)


def test_a_name_has_neither_user_nor_options() -> None:
    url = "postgresql+psycopg://me:SECRET@host:5433/study?passfile=SECRET"
    assert name_database(url) == "postgresql+psycopg://host:5433/study"
    assert name_database("sqlite:///study.db") == "sqlite:///study.db"


def test_a_server_that_was_started_again_goes_unnoticed(postgresql: Server) -> None:
    storage = connect(postgresql.make_database("restarted"))
    study = optuna.create_study(storage=storage)
    postgresql.stop()
    postgresql.start()
    with warnings.catch_warnings(record=True) as caught:
        study.tell(study.ask(), 1.0)
    assert not caught
