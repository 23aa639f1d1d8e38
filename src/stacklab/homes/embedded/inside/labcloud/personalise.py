"""Make a copy of the template this lab's own cloud: its passwords, keys and addresses. Safe to repeat.

Reads {"passwords": {user: password}} from standard input: everybody on the machine can read an argument list.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing

import bcrypt
from cryptography.fernet import Fernet

from labcloud import settings
from labcloud.setup.keystone import SERVICES


def main():
    passwords = json.load(sys.stdin)["passwords"]
    cloud = settings.read()
    with closing(sqlite3.connect(settings.HOME / "db" / "keystone.db", timeout=60)) as connection, connection:
        set_passwords(connection, passwords)
        set_addresses(connection, cloud["urls"])
    set_cells()
    make_keys()


def set_passwords(connection, passwords):
    """Keystone keeps bcrypt hashes in `password`, found through `local_user`; rounds as in keystone.conf."""
    for user, password in passwords.items():
        digest = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()
        changed = connection.execute(
            "UPDATE password SET password_hash = ? WHERE local_user_id IN"
            " (SELECT id FROM local_user WHERE name = ? AND domain_id = 'default')",
            (digest, user),
        )
        if not changed.rowcount:
            raise SystemExit(f"the template has no user '{user}'")


def set_addresses(connection, urls):
    for name, kind in {"keystone": "identity", **SERVICES}.items():
        connection.execute(
            # one that has moved to https stays there: the proxy before the service keeps its own port
            "UPDATE endpoint SET url = ? WHERE service_id IN (SELECT id FROM service WHERE type = ?)"
            " AND NOT (interface = 'public' AND url LIKE 'https://%')",
            (urls[name], kind),
        )


def set_cells():
    """Nova keeps the absolute path of its databases in cell_mappings."""
    with closing(sqlite3.connect(settings.HOME / "db" / "nova_api.db", timeout=60)) as connection, connection:
        for cell in ("cell0", "cell1"):
            address = f"sqlite:///{settings.HOME}/db/nova_{cell}.db?plugin=labcloud"
            connection.execute("UPDATE cell_mappings SET database_connection = ? WHERE name = ?", (address, cell))


def make_keys():
    """Key 0 is the next one, the highest number signs (Keystone's key repositories)."""
    for name in ("fernet", "credential"):
        directory = settings.HOME / "keys" / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in ("0", "1"):
            path = directory / number
            if not is_key(path):
                draft = directory.with_name(f".{name}-{number}")
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(Fernet.generate_key())
                draft.replace(path)


def is_key(path):
    """One that is damaged is made anew: tokens of before are refused then, and everybody logs in again."""
    try:
        return bool(Fernet(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        return False


if __name__ == "__main__":
    main()
