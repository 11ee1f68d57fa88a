"""Every statement is served by an index in PostgreSQL, too.

In a database with many messages whose statistics are known; the plans are
those for whatever values, and of what lists and counts, for some.
"""

import re

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import Delete, Select, Update

from stampman.store import _combined
from stampman.store import _statements as sql
from stampman.store.sql import SqlStore

# Run once for each boot of a machine that counts leases by itself, and never
# with a server; and what is about one row for each process or account.
NOT_MANY = {'LEASE_CLOCK', 'FORGET_LEASE_CLOCK', 'END_ALL_LEASES', 'HEALTH',
            'FORGET_WORKERS', 'LAST_BEAT'}
SOME = {'in_pool': "'pool0'", 'in_state': "'deferred'", 'low': "''",
        'high': "'g'", 'since': "'-Infinity'", 'until': "'Infinity'",
        'most': '51', 'mailbox': "'00000001-0000-7000-8000-000000000000'"}
CASTS = {'Double': '::float8', 'Boolean': '::bool', 'Text': '::text'}
MANY = """
INSERT INTO messages SELECT
    lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000',
    'pool' || n % 3, CASE n % 500 WHEN 0 THEN 'deferred' WHEN 1 THEN
    'sending' ELSE 'accepted' END, n, n, 'hold', 0,
    CASE n % 500 WHEN 0 THEN n END, 0, 0, false, '', NULL,
    CASE n % 500 WHEN 1 THEN n END, 1
FROM generate_series(1, 20000) AS n;
INSERT INTO emails SELECT id, '{}' FROM messages;
INSERT INTO attachments SELECT id, 0, 'x' FROM messages;
INSERT INTO recipients SELECT id, 0, 'to', id, id, 'accepted', ''
    FROM messages;
INSERT INTO attempts SELECT id, id, 1, '', '', 0, 1 FROM messages;
INSERT INTO idempotency SELECT pool, id, '', '', created_at FROM messages;
INSERT INTO rates SELECT id, 1, 1 FROM messages;
INSERT INTO workers SELECT id, 1 FROM messages;
INSERT INTO health SELECT id, 1, '', 1 FROM messages;
INSERT INTO checks SELECT id, 1 FROM messages;
ANALYZE
"""


def queries():
    """Give each statement that looks for rows, with its name."""
    for name, one in [*vars(sql).items(), *vars(_combined).items()]:
        one = getattr(one, 'statement', one)
        if name[0] != '_' and isinstance(one, Delete | Select | Update):
            yield name, one
    for asked, page in sql.PAGES.items():
        yield f'PAGES {asked}', page


@pytest.fixture(scope='session')
def plan_of(postgres_server, postgres_migrated):
    """Return a function that gives the plan of a statement."""
    name = postgres_server.new_database(postgres_migrated)
    connection = postgres_server.connect(name)
    connection.execute(MANY)

    def explain(statement, values=()):
        compiled = statement.compile(dialect=postgresql.psycopg.dialect())
        text = re.sub(r'__\[POSTCOMPILE_(\w+)\]', r'%(\1)s', str(compiled))
        for number, (name, bind) in enumerate(compiled.binds.items(), 1):
            kind = CASTS.get(type(bind.type).__name__, '')
            value = values[name] if values else f'${number}'
            text = text.replace(f'%({name})s', f'{value}{kind}')
        [[[plan]]] = connection.execute(
            f'EXPLAIN ({"" if values else "GENERIC_PLAN, "}FORMAT JSON) '
            f'{text}').fetchall()
        return plan['Plan']

    yield explain
    connection.close()


def steps(plan):
    yield plan
    for one in plan.get('Plans', ()):
        yield from steps(one)


def test_every_query_is_served_by_an_index(plan_of):
    looked_at = dict(queries())
    assert len(looked_at) > 40
    for name in looked_at.keys() - NOT_MANY:
        plan = plan_of(looked_at[name])
        assert not [step for step in steps(plan)
                    if step['Node Type'] in ('Seq Scan', 'Sort')], (
            name, plan)


@pytest.mark.parametrize('state', ['deferred', 'rejected'])
def test_a_page_in_a_state_does_not_read_the_others(plan_of, state):
    plan = plan_of(sql.PAGES[True, False], {**SOME, 'in_state': f"'{state}'"})
    assert {step['Index Name'] for step in steps(plan)
            if 'Index Name' in step} <= {
        'ix_messages_pool_state', 'ix_messages_unsettled'}


@pytest.mark.parametrize('asked', sql.PAGES)
def test_a_page_reads_no_table_whole(plan_of, asked):
    plan = plan_of(sql.PAGES[asked], SOME)
    assert not [step for step in steps(plan)
                if step['Node Type'] == 'Seq Scan']


def test_what_is_read_is_planned_for_what_is_asked(postgres_url):
    store = SqlStore.at(postgres_url)
    with store._database.read() as connection:
        assert connection.exec_driver_sql(
            'SHOW plan_cache_mode').scalar() == 'force_custom_plan'
    store.close()
