"""Cases that run side by side: most of their time they wait for a lease."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

AT_A_TIME = 4


def side_by_side(run: Callable):
    """Return a fixture that starts `run(folder, *case)` for each `case` of a
    test that is asked for in its module; it gives the futures by case."""
    @pytest.fixture(scope='module')
    def started(request, tmp_path_factory):
        wanted = [item.callspec.params['case']
                  for item in request.session.items
                  if item.module is request.module
                  and 'case' in item.fixturenames]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            yield {case: pool.submit(
                run, tmp_path_factory.mktemp('case'), *case)
                for case in wanted}

    return started


def by_name(runs: Mapping[str, Callable]) -> Callable:
    """Return what runs the one of `runs` that a case begins with."""
    return lambda folder, name, *about: runs[name](folder, *about)
