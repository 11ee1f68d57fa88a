"""What the tests of the store do in a process of its own.

Run as `python store_child.py DIRECTORY WHAT`. It says a line when it is
ready, and begins, or ends, when it is told a line.
"""

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from stampman.helpers.delivery import IdempotencyKey  # noqa: E402
from stampman.helpers.exceptions import (  # noqa: E402
    KeyTaken, StoreUnavailable)

from backends import (  # noqa: E402
    NOW, add, attempt, email, ids, message, sqlite_store)


def say(*words):
    print(*words, flush=True)


def ready():
    say('ready')
    sys.stdin.readline()


def migrate(store):
    ready()
    say(store.migrate())


def claim(store):
    ready()
    while due := store.claim_due('child', NOW, NOW + 60, limit=3):
        say(*ids(due))


def load(store):
    """Take in and begin until killed; say what is acknowledged."""
    ready()
    while True:
        say('added', add(store).id)
        for claimed, _ in store.claim_due('child', NOW, NOW + 60):
            begun = attempt()
            store.begin(claimed, begun, NOW + 60)
            say('begun', begun.id)


def twins(store):
    """Store under keys that others use too; say what is stored."""
    ready()
    for number in range(20):
        one, key = message(), IdempotencyKey(str(number), 'the same')
        try:
            store.add(one, email(), key=key)
            say('stored', one.id)
        except KeyTaken:
            say('known', store.known(one.pool, key, NOW)[0])


def lock(store):
    """Hold the write lock, as a transaction that takes long."""
    store._database.write(lambda connection: ready())


def fill(store):
    """Meet a limit to the file's size, as of a quota; then have it lifted."""
    ready()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    for _ in range(500):
        try:
            say('added', add(store).id)
        except StoreUnavailable as error:
            say('full', error.retry_after, error.detail)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    say('added', add(store).id)


if __name__ == '__main__':
    opened = sqlite_store(sys.argv[1])
    globals()[sys.argv[2]](opened)
    opened.close()
