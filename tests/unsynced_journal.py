"""A commit whose rollback journal is gone, but not durably so.

`python -m unsynced_journal FOLDER` does it with the driver of the standard
library, which names such errors, in a process where no other thread takes the
number of a file. It prints what is told of the commit, of a look while the
folder cannot be synced, and of one when it can.
"""

import os
import sys
from pathlib import Path

sys.modules['pysqlite3'] = None     # as where it is not installed

from backends import sqlite_store       # noqa: E402
from fresh import put_fresh             # noqa: E402
from test_sqlite_commits import on_a_bad_disk       # noqa: E402


def main(folder: Path) -> None:
    held = os.open(os.devnull, os.O_RDONLY)
    put_fresh(folder / 'messages.db')
    store = sqlite_store(folder, journal_mode='delete')
    count(store)        # its connections are made

    def work(connection):
        connection.exec_driver_sql("INSERT INTO rates VALUES ('x', 1, 1)")
        os.close(held)      # the folder is opened under this number

    told = on_a_bad_disk(lambda: store._database.write(work), held)
    looked = on_a_bad_disk(lambda: count(store))
    print(type(told).__name__, type(looked).__name__, count(store))
    store.close()


def count(store):
    with store._database.read() as connection:
        return connection.exec_driver_sql(
            'SELECT count(*) FROM rates').scalar()


if __name__ == '__main__':
    main(Path(sys.argv[1]))
