"""The README's steps for Heroku, pasted beside a `heroku` that pretends."""

import json
import os
import re
import subprocess
import sys

import pytest

from stampman import cli
from stampman.gateway import load_config
from stampman.helpers import environment as environments

from dynos import PROCFILE
from gateway_server import ROOT

README = (ROOT / 'README.md').read_text()
APP = json.loads((ROOT / 'app.json').read_text())
PAGES = README + (ROOT / 'docs' / 'deploy.md').read_text()
STEPS, = (block for block in re.findall(
    r'^```sh\n(.*?)^```$', README, re.DOTALL | re.MULTILINE)
    if block.startswith('heroku create\n'))
CONFIG, = re.findall(r'^```json\n(.*?)^```$', README,
                     re.DOTALL | re.MULTILINE)
# https://devcenter.heroku.com/articles/heroku-cli-commands
COMMANDS = {
    'create', 'addons:create', 'config', 'config:set', 'config:unset',
    'domains:add', 'info', 'login', 'maintenance:on', 'open',
    'pg:backups:schedule', 'ps:scale', 'ps:type', 'run'}
# Each writes down how it was called; nothing leaves this machine.
HEROKU = f'''#!{sys.executable}
import json, os, sys
print(json.dumps(sys.argv[1:]), file=open(os.environ['CALLS'], 'a'))
if sys.argv[1:] == ['info', '-s']:
    print('name=a-b-1', 'web_url=https://a-b-1.herokuapp.com/', sep='\\n')
'''
GIT = '''#!/bin/sh
test "$1" = push && exec heroku git:"$@"
exec {git} "$@"
'''


@pytest.fixture(scope='module')
def pasted(tmp_path_factory):
    """A fork with the config that the README shows, and what was called."""
    folder = tmp_path_factory.mktemp('heroku')
    fork, programs = folder / 'fork', folder / 'programs'
    fork.mkdir()
    programs.mkdir()
    git = subprocess.check_output(
        ['sh', '-c', 'command -v git'], text=True).strip()
    for name, text in {'heroku': HEROKU,
                       'git': GIT.format(git=git)}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    who = {f'GIT_{role}_{what}': 'ada@example.org'
           for role in ('AUTHOR', 'COMMITTER') for what in ('NAME', 'EMAIL')}
    environ = {'PATH': f'{programs}:{os.environ["PATH"]}', **who,
               'HOME': str(folder), 'CALLS': str(folder / 'calls')}

    def run(commands):
        return subprocess.run(
            ['bash', '-euc', commands], cwd=fork, env=environ, check=True,
            capture_output=True, text=True).stdout

    (fork / 'config.json').write_text(
        (ROOT / 'config.json').read_text())
    run('git init -qb main && git add . && git commit -qm theirs')
    (fork / 'config.json').write_text(CONFIG)
    run(STEPS.replace('=…', '=given'))
    calls = [json.loads(line) for line in (
        folder / 'calls').read_text().splitlines()]
    return run, calls


def words_after(calls, name):
    [found] = [words for first, *words in calls if first == name]
    return found


def test_what_is_pushed_is_the_config_that_was_edited(pasted):
    run, calls = pasted
    assert run('git show HEAD:config.json') == CONFIG
    assert words_after(calls, 'git:push') == ['heroku', 'main']


def test_the_variables_that_are_set_make_it_valid(pasted, tmp_path):
    (tmp_path / 'config.json').write_text(CONFIG)
    known = dict(word.split('=', 1)
                 for word in words_after(pasted[1], 'config:set'))
    environment = environments.read({
        **known, 'DYNO': 'release.1', 'PORT': '5000',
        'STAMPMAN_CONFIG': str(tmp_path / 'config.json'),
        'DATABASE_URL': 'postgres://a:b@127.0.0.1:1/c'})
    assert environment.production and environment.secret_key
    assert environment.public_url == 'https://a-b-1.herokuapp.com'
    assert load_config(environment).pools[0].domain == 'example.com'


def test_the_database_and_the_dyno_are_those_of_the_button(pasted):
    assert words_after(pasted[1], 'addons:create')[:1] == [
        addon['plan'] for addon in APP['addons']]
    kind, _, size = words_after(pasted[1], 'ps:type')[0].partition('=')
    assert kind in PROCFILE and size == APP['formation'][kind]['size']


def test_what_is_run_there_is_a_command_of_ours(pasted):
    python, option, program, command, *options = words_after(
        pasted[1], 'run')
    assert [python, option, program] == ['python', '-m', 'stampman']
    cli.main.commands[command].make_context(command, options)


def test_every_step_is_one_that_heroku_knows(pasted):
    named = set(re.findall(r'(?:^|`|\()heroku ([a-z:]+)', PAGES,
                           re.MULTILINE))
    assert {'create', 'ps:scale', 'domains:add'} <= named <= COMMANDS
    assert {first for first, *_ in pasted[1]} <= COMMANDS | {'git:push'}


def test_processes_that_are_scaled_are_in_the_procfile():
    scaled = {word.partition('=')[0] for words in re.findall(
        r'heroku ps:scale ([a-z0-9= ]+)', PAGES) for word in words.split()}
    assert scaled and scaled <= {*PROCFILE}


def test_variables_that_are_set_somebody_reads():
    named = set(re.findall(r'config:(?:un)?set ([A-Z_]+)', PAGES))
    assert named - {'SENDGRID_API_KEY'} <= environments.VARIABLES | {
        'WEB_CONCURRENCY'}
