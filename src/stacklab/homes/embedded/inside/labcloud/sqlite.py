"""SQLAlchemy engine plugin, chosen by `?plugin=labcloud` in a connection URL: SQLite that waits instead of failing.

WAL and a busy timeout are not enough: a transaction that began by reading and then writes is refused at once
(SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html), whatever the timeout, and oslo.db does not retry it. So
before the first write of a transaction its read snapshot is ended and it begins again IMMEDIATE, which does wait.
"""

from sqlalchemy import event
from sqlalchemy.engine import CreateEnginePlugin

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "SAVEPOI", "CREATE", "ALTER", "DROP")


class WaitingSQLite(CreateEnginePlugin):
    """See the module."""

    def __init__(self, url, kwargs):
        pass

    def update_url(self, url):
        return url.difference_update_query(["plugin"])

    def engine_created(self, engine):
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", set_up)
            event.listen(engine, "before_cursor_execute", wait_before_writing)
            event.listen(engine, "commit", forget_write)
            event.listen(engine, "rollback", forget_write)


def set_up(connection, record):
    connection.execute("PRAGMA busy_timeout=60000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "PRAGMA synchronous=NORMAL"
    )  # in WAL mode a crash loses at most the last commits, never the file


def wait_before_writing(connection, cursor, statement, parameters, context, many):
    info = connection.info
    if info.get("in_transaction") and not info.get("labcloud_writes") and is_write(statement):
        cursor.execute("COMMIT")
        cursor.execute("BEGIN IMMEDIATE")
        info["labcloud_writes"] = True


def is_write(statement):
    return statement.lstrip()[:7].upper().startswith(WRITES)


def forget_write(connection):
    connection.info.pop("labcloud_writes", None)
