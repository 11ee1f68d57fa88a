"""Cases that run side by side: most of their time they wait for a lease."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

AT_A_TIME = 4


@contextmanager
def side_by_side(run: Callable, request, tmp_path_factory
                 ) -> Iterator[Mapping[tuple, Future]]:
    """Start `run(folder, *case)` for each `case` of a test that is asked
    for in the module of `request`; give the futures by case."""
    wanted = [item.callspec.params['case'] for item in request.session.items
              if item.module is request.module
              and 'case' in item.fixturenames]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {case: pool.submit(run, tmp_path_factory.mktemp('case'), *case)
               for case in wanted}
