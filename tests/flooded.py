"""Call one provider that floods us; print how many bytes of memory it cost.

    python flooded.py PROVIDER
"""

import gzip
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from servers import RawServer                       # noqa: E402
from test_services import an_email, context, service    # noqa: E402

OK = b'HTTP/1.1 200 OK\r\n'
BOMB = gzip.compress(bytes(20_000_000))
FLOODS = {
    'endless': (OK + b'\r\n', b'x' * 65_536),
    'headers': (OK, b'X-Flood: 1\r\n' * 1000),
    'chunks': (OK + b'Transfer-Encoding: chunked\r\n\r\n',
               b'1000\r\n' + b'x' * 4096 + b'\r\n'),
    'gzip': (OK + b'Content-Encoding: gzip\r\n\r\n', BOMB),
}


def memory():
    """Return the most bytes of memory that this process has held."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def flood(provider, head, piece):
    def behave(connection, server):
        server.read_request(connection)
        connection.sendall(head)
        while not server.stopped.is_set():
            connection.sendall(piece)

    with RawServer(behave) as server:
        ours = service(provider, server.url)
        deadline = time.monotonic() + 1
        return ours.send_email(
            an_email(), context()._replace(deadline=deadline))


def main(provider):
    flood(provider, *FLOODS['headers'])     # what is loaded once
    grown = {}
    for name, (head, piece) in FLOODS.items():
        before = memory()
        assert flood(provider, head, piece).kind == 'uncertain'
        grown[name] = memory() - before
    print(json.dumps(grown))


if __name__ == '__main__':
    main(sys.argv[1])
