"""The source keeps the rules that the design gives it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pycodestyle
import pytest

import stampman
from stampman.helpers import environment, exceptions

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / 'stampman'
SOURCES = sorted(path for folder in ('stampman', 'tests', 'bench')
                 for path in (ROOT / folder).rglob('*.py'))
SOURCES += [ROOT / 'setup.py', ROOT / 'gunicorn.conf.py']
MAX_LINES = 400

FIXED = (
    'README.md', 'config.json', 'config.schema.json', 'requirements.txt',
    'Procfile', 'app.json', '.travis.yml', 'setup.py', 'Makefile',
    'pyproject.toml',
    '.python-version', '.env.example', 'LICENSE', 'CHANGELOG.md', '.ci/run',
    'stampman/main.py', 'stampman/api/__init__.py',
    'stampman/helpers/__init__.py', 'stampman/services/__init__.py',
    'tests/requirements.txt', 'tests/test_api.py', 'tests/test_helpers.py',
    'tests/test_services.py', 'tests/test_sanity.py')
CHOSEN = {
    'requirements.txt': ('flask', 'flask-api', 'requests', 'sendgrid',
                         'gunicorn', 'sentry-sdk'),
    'tests/requirements.txt': ('pytest', 'pycodestyle')}

# Levels 1 to 3 and what they stand on: time and chance are handed in.
HANDED_IN = ('helpers', 'services', 'store', 'intake.py', 'dispatch.py',
             'tracking.py', 'health.py', 'backoff.py', 'gateway.py')
BANNED = re.compile(
    r'time\.(time|time_ns|monotonic|monotonic_ns|perf_counter\w*|sleep)'
    r'|random\..*|secrets\..*|os\.urandom|uuid\.uuid\d|uuid_utils\..*'
    r'|datetime\.(datetime\.(now|utcnow|today)|date\.today)')
# Locks are for what threads share; a thread is never started below level 4.
LOCKS = ('services/transport.py', 'services/_', 'store/', 'gateway.py',
         'health.py', 'helpers/turns.py')
HELPERS_MAY_IMPORT = sys.stdlib_module_names | {
    'stampman', 'pydantic', 'email_validator', 'dotenv'}
# Seen as text: paths of a person's machine, and where packages come from.
OF_ONE_MACHINE = re.compile(
    r'(?<![\w.$}])/(?:home|root|Users|work|opt|private)/[\w.]'
    r'|--(?:index-url|extra-index|find-links|trusted-host)')


def relative(path):
    return str(path.relative_to(ROOT))


def modules(*below):
    return [path for name in below for path in
            ([CODE / name] if name.endswith('.py') else
             sorted((CODE / name).rglob('*.py'))) if path.exists()]


def names_used(tree):
    """Return (line, dotted name) of all that is reached through imports."""
    known, used = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition('.')[0]
                known[alias.asname or first] = (
                    alias.name if alias.asname else first)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                dotted = f'{node.module}.{alias.name}'
                known[alias.asname or alias.name] = dotted
                used.append((node.lineno, dotted))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = dotted_name(node, known)
            if dotted:
                used.append((node.lineno, dotted))
    return used


def dotted_name(node, known):
    steps = []
    while isinstance(node, ast.Attribute):
        steps.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return None
    return '.'.join([known[node.id], *reversed(steps)])


def parsed(path):
    return ast.parse(path.read_text('utf-8'), str(path))


def test_the_style_is_pycodestyle_with_its_default_settings():
    found = pycodestyle.StyleGuide().check_files([*map(str, SOURCES)])
    assert found.total_errors == 0


def test_no_file_is_too_long_to_read():
    assert not {relative(path): lines for path in SOURCES if (lines := len(
        path.read_text('utf-8').splitlines())) > MAX_LINES}


def test_each_level_imports_only_what_stands_below_it():
    found = subprocess.run(     # it would set up logging in this process
        [sys.executable, '-c', 'from importlinter import cli; '
         'raise SystemExit(cli.lint_imports(no_cache=True))'],
        cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


def test_time_and_chance_are_handed_in():
    assert not [
        f'{relative(path)}:{line}: {name}' for path in modules(*HANDED_IN)
        for line, name in names_used(parsed(path)) if BANNED.fullmatch(name)]


@pytest.mark.parametrize('source', [
    'import time\ntime.sleep(1)', 'from time import monotonic',
    'import time as t\nt.time()', 'import datetime\ndatetime.datetime.now()',
    'from datetime import datetime as D\nD.utcnow()', 'import uuid\n'
    'uuid.uuid4()', 'from random import random', 'import os\nos.urandom(1)'])
def test_the_ban_is_seen_through_every_way_of_importing(source):
    assert any(BANNED.fullmatch(name)
               for _, name in names_used(ast.parse(source)))


def test_threads_are_not_started_below_the_doors_and_locks_have_reasons():
    for path in modules(*HANDED_IN):
        used = {name for _, name in names_used(parsed(path))
                if re.match(r'threading\b|_thread\b|concurrent\b', name)}
        place = str(path.relative_to(CODE))
        allowed = place.startswith(LOCKS)
        assert allowed or not used, place
        if not place.startswith('services/'):   # a name look-up may hang
            assert 'threading.Thread' not in used, place


def test_the_vocabulary_stands_on_its_own():
    for path in modules('helpers'):
        for node in ast.walk(parsed(path)):
            names = ([alias.name for alias in node.names]
                     if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom)
                     else [])
            for name in names:
                assert name.partition('.')[0] in HELPERS_MAY_IMPORT, path


def test_heavy_libraries_are_loaded_when_they_are_used():
    found = subprocess.run(
        [sys.executable, '-c', 'import stampman.main, sys; '
         'print(*sorted(sys.modules))'],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert 'stampman.api' in found.stdout.split()
    assert not {'alembic', 'sendgrid', 'botocore', 'psycopg'} & set(
        found.stdout.split())


@pytest.mark.parametrize('name', FIXED)
def test_what_the_project_promises_to_have_is_there(name):
    assert (ROOT / name).is_file()


def test_the_chosen_libraries_are_pinned_with_hashes():
    for file, chosen in CHOSEN.items():
        text = (ROOT / file).read_text('utf-8')
        names = re.findall(r'^([a-z0-9-]+)==[\w.]+.* \\$\n'
                           r'    --hash=sha256:[0-9a-f]{64}', text,
                           re.MULTILINE)
        assert set(chosen) <= set(names), file
        assert len(names) == len(re.findall('==[0-9]', text)), file
    assert re.search(r'^flask==3\.1\.', (
        ROOT / 'requirements.txt').read_text('utf-8'), re.MULTILINE)


def test_the_two_lists_of_pins_agree():
    found = [dict(re.findall(r'^([a-z0-9-]+)==([\w.]+)',
                             (ROOT / name).read_text('utf-8'), re.MULTILINE))
             for name in CHOSEN]
    for name in set(found[0]) & set(found[1]):
        assert found[0][name] == found[1][name], name


def test_the_changelog_begins_with_this_version():
    newest = re.search(r'^## (\S+)', (
        ROOT / 'CHANGELOG.md').read_text('utf-8'), re.MULTILINE)
    assert newest[1] == stampman.__version__


def test_the_example_of_an_environment_names_every_variable_and_no_value():
    text = (ROOT / '.env.example').read_text('utf-8')
    named = set(re.findall(r'^#?([A-Z_]+)=', text, re.MULTILINE))
    assert environment.VARIABLES - {'STAMPMAN_CONFIG'} <= named
    assert not re.findall(r'^[A-Z_]+=.+', text, re.MULTILINE)


def test_every_error_stands_in_the_tree_under_its_parent():
    tree = [(len(line) - len(line.lstrip(' │├└─')), line)
            for line in exceptions.__doc__.splitlines()]
    shown, path = {}, []
    for depth, line in tree:
        name = re.search(r'[A-Z]\w+', line)
        if not re.match(r' {4}[ │├└─]*[A-Z]\w+ {2,}', line):
            continue
        path = [(d, n) for d, n in path if d < depth]
        shown[name[0]] = path[-1][1] if path else 'Exception'
        path.append((depth, name[0]))
    assert shown == {
        cls.__name__: cls.__base__.__name__
        for cls in vars(exceptions).values()
        if isinstance(cls, type) and issubclass(cls, Exception)}


def test_every_status_in_the_tree_is_the_class_s_own():
    for name, status in re.findall(r'(\w+) +(\d{3}) ', exceptions.__doc__):
        assert getattr(exceptions, name).status == int(status), name


def test_nothing_names_the_machine_it_was_made_on():
    kept = [ROOT / name for name in FIXED] + SOURCES + [
        path for folder in ('docs', 'tests', 'stampman', 'bench')
        for path in (ROOT / folder).rglob('*')
        if path.suffix in ('.md', '.json', '.html', '.css', '.mako', '.txt')]
    assert not [f'{relative(path)}: {found[0]}' for path in kept
                if path.exists() and (found := OF_ONE_MACHINE.search(
                    path.read_text('utf-8')))]


def test_the_package_carries_all_that_is_not_python():
    source = (ROOT / 'setup.py').read_text('utf-8')
    patterns = re.findall(r"'((?:api|store)/[^']+\*[^']*)'", source)
    carried = {path for pattern in patterns for path in CODE.glob(pattern)}
    assert {path for path in CODE.rglob('*') if path.is_file()
            and path.suffix not in ('.py', '.pyc')} <= carried


def test_the_tools_settings_describe_no_package():
    found = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))
    assert set(found) == {'tool'}
