"""The rules of the test run itself hold."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import strict

TESTS = Path(__file__).parent
NOT_RUN = {
    'skipped': '''
import pytest

@pytest.mark.skip(reason='tired')
def test_it():
    pass
''',
    'skipped_while_it_runs': '''
import pytest

def test_it():
    pytest.skip('tired')
''',
    'skipped_by_its_fixture': '''
import pytest

@pytest.fixture
def absent():
    pytest.skip('tired')

def test_it(absent):
    pass
''',
    'skipped_with_its_module': '''
import pytest

pytest.importorskip('no_such_module_anywhere')

def test_it():
    pass
''',
    'expected_to_fail': '''
import pytest

@pytest.mark.xfail
def test_it():
    assert False
''',
    'expected_to_fail_and_passing': '''
import pytest

@pytest.mark.xfail
def test_it():
    pass
''',
}


LEAVES_THE_MACHINE = '''
import socket

def test_it():
    for host in ('192.0.2.1', 'mail.example.com'):
        try:
            socket.create_connection((host, 25))
        except OSError:
            pass
'''


def run_pytest(folder, **sources):
    for name, source in sources.items():
        (folder / f'test_{name}.py').write_text(source)
    return subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'strict', '-p',
         'no:cacheprovider', '-rA', '--continue-on-collection-errors', folder],
        cwd=folder, timeout=60,
        env={**os.environ, 'PYTHONPATH': str(TESTS),
             'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'},
        text=True, capture_output=True)


def test_a_test_that_does_not_run_fails_the_run(tmp_path):
    found = run_pytest(tmp_path, **NOT_RUN)
    assert found.returncode != 0
    for name in NOT_RUN:
        assert re.search(rf'^(FAILED|ERROR) test_{name}.py', found.stdout,
                         re.MULTILINE), found.stdout
    assert found.stdout.count('every test must run and pass') >= len(NOT_RUN)


def test_a_test_that_leaves_the_machine_fails_even_if_it_hides_it(tmp_path):
    found = run_pytest(tmp_path, leaves=LEAVES_THE_MACHINE,
                       passes='def test_it():\n    assert True\n')
    assert found.returncode == 1
    assert 'tests reach loopback only' in found.stdout
    assert '192.0.2.1' in found.stdout and 'mail.example.com' in found.stdout
    assert 'PASSED test_passes.py::test_it' in found.stdout


def test_loopback_is_reached_and_no_such_name_stays_no_such_name():
    with socket.create_server(('127.0.0.1', 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            assert client.getpeername() == server.getsockname()
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo('nobody.invalid', 80)
    assert not strict.strays
