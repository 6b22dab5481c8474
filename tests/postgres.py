"""A real PostgreSQL server, on loopback, of an ordinary user."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

# What must never be told, and never be in a file.
PASSWORD = "never-told"
USER = "cellline"

# Below the ports that systems give to whoever connects somewhere: it stays free while the server is
# stopped.
FIRST_PORT = 15432


@dataclass(frozen=True)
class Server:
    """A server whose user needs a password."""

    binaries: Path
    folder: Path
    port: int

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -F"
        self.control("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """As when its process is killed."""
        self.control("stop", "-w", "-m", "immediate")

    def control(self, *arguments: str) -> None:
        run(self.binaries / "pg_ctl", "-D", str(self.folder / "data"), *arguments)

    def url(self, database: str, password: str = PASSWORD) -> str:
        place = f"{USER}:{password}@127.0.0.1:{self.port}/{database}"
        return f"postgresql+psycopg://{place}"

    def connect(self, database: str) -> psycopg.Connection:
        conninfo = f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD}"
        return psycopg.connect(f"{conninfo} dbname={database}", autocommit=True)

    def execute(self, database: str, statement: str) -> None:
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def value(self, database: str, query: str) -> Any:
        """The first value of a query's first row."""
        with self.connect(database) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def is_busy(self, database: str, client: str) -> bool:
        """Whether a client of a database, by its application_name, is within a transaction."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{client}'"
        return bool(self.value(database, f"{query} AND xact_start IS NOT NULL"))

    def make_database(self, name: str) -> str:
        """A new database; its URL."""
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Start one in a folder of its own; skip where PostgreSQL is not installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2])
    )
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql)")
    binaries = found[-1] if found else Path(str(on_path)).parent
    # Not pytest's folder, which others than its owner may not enter.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        password_file = folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        settings = ("--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8")
        users = ("--username", USER, "--pwfile", str(password_file))
        run(binaries / "initdb", "--pgdata", str(folder / "data"), *settings, *users)
        server = Server(binaries, folder, find_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def find_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def run(program: Path, *arguments: str) -> None:
    """Run a program of PostgreSQL's, which refuses to be root."""
    command = [str(program), *arguments]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        ids = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
        command = ["setpriv", *ids, *command]
    done = subprocess.run(
        # A server keeps the outputs that it is started with.
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if program.name != "pg_ctl" else subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}: {done.stderr!r}"
