"""The version of the schema that a database has, beside this program's."""

from sqlalchemy import Connection, inspect

from stampman.store.schema import HEAD

_VERSION = 'SELECT version_num FROM alembic_version'


def compared(connection: Connection) -> tuple[str, bool]:
    """Return what is wrong with the schema, and whether it is just behind."""
    tables = inspect(connection).get_table_names()
    if 'alembic_version' not in tables:
        if tables:
            return 'the database is another program\'s: it has tables, but ' \
                'not Stampman\'s; correct DATABASE_URL', False
        return 'the database is empty: run "stampman migrate"', True
    found = connection.exec_driver_sql(_VERSION).scalar() or ''
    if found < HEAD:
        return f'the schema ({found}) is older than this program\'s ' \
            f'({HEAD}): run "stampman migrate"', True
    if found > HEAD:
        return f'the schema ({found}) is newer than this program\'s ' \
            f'({HEAD}): run the newer Stampman, or restore a backup from ' \
            'before its "stampman migrate"', False
    return '', False
