"""The demo does what it says, and leaves nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from servers import closed_port
from stampman import demo
from stampman.cli import main
from stampman.simulator import Simulator

ROOT = Path(__file__).parent.parent
# What a newcomer is to see, in this order.
STORY = [
    r'^1  Both providers are well\.$',
    r'Order 1 +200  status: accepted .*\n +service_used: sendgrid$',
    r'^2  SendGrid goes down',
    r'Order 2 +200  status: accepted .*\n +service_used: mailgun\n'
    r' +services_fail: sendgrid: HTTP 503',
    r'^3  It stays down: after 5 failures in a row it rests\.$',
    r'Order 6 .*\n +service_used: mailgun\n +services_fail: sendgrid: HTTP',
    r'Order 7 .*\n +service_used: mailgun\n'
    r' +services_fail: sendgrid: it rested$',
    r'^4  SendGrid is well again',
    r'Order 8 .*\n +service_used: sendgrid\n +Order 9 .*\n'
    r' +service_used: sendgrid$',
    r'^5  SendGrid takes an email, but the line breaks',
    r'Order 10 +200  status: accepted .*\n +service_used: mailgun$',
    r'^ +possible_duplicate: true$',
    r'^6  The same in the pool bank\.example, which never sends twice\.$',
    r'Order 11 +202  status: uncertain ',
    r'^ +reason: held: a provider may have taken it$',
    r'resolve +200  status: accepted ',
    r'^=  What the two providers have taken',
    r'^ +Order 1 +sendgrid\n +Order 2 +mailgun$',
    r'^ +Order 10 +sendgrid and mailgun\n +Order 11 +sendgrid$',
    r'^All 11 emails have been taken\. One was taken twice: the one that was '
    r'marked\.$']


@pytest.fixture(scope='module')
def played(tmp_path_factory):
    """The demo as a process of its own, in an environment that would spoil
    it, and the folder for its temporary files."""
    folder = tmp_path_factory.mktemp('demo')
    (folder / 'temporary').mkdir()
    proxy = f'http://127.0.0.1:{closed_port()}'
    process = subprocess.Popen(
        [sys.executable, '-m', 'stampman', 'demo'], cwd=folder,
        env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT),
             'TMPDIR': str(folder / 'temporary'), 'HTTP_PROXY': proxy,
             'http_proxy': proxy, 'STAMPMAN_CONFIG': 'of-somebody-else.json',
             'DATABASE_URL': 'sqlite:///of-somebody-else.db'},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True)
    out, errors = process.communicate(timeout=30)
    return process, out, errors, folder


def test_it_ends_well_and_logs_nothing(played):
    process, _, errors, _ = played
    assert (process.returncode, errors) == (0, '')


def test_its_story_is_told_in_order(played):
    place = 0
    for line in STORY:
        found = re.compile(line, re.MULTILINE).search(played[1], place)
        assert found, f'{line} is not told after:\n{played[1][:place]}'
        place = found.start() + 1


def test_it_fits_a_terminal_and_is_plain_where_there_is_none(played):
    assert max(map(len, played[1].splitlines())) <= 79
    assert played[1].isascii() and '\x1b' not in played[1]


def test_it_leaves_nothing_behind(played):
    process, _, _, folder = played
    assert list(folder.rglob('*')) == [folder / 'temporary']
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)       # nobody is left of its session


def test_it_explains_itself():
    told = CliRunner().invoke(main, ['demo', '--help'])
    assert told.exit_code == 0
    assert 'no account and no config' in told.output


@pytest.mark.parametrize('fault, act, differs', [
    ('sendgrid:status=503', 'both_are_well', "service_used: 'sendgrid'"),
    ('mailgun:status=503', 'one_is_down', "status: 'accepted'"),
    ('sendgrid:reset=after', 'it_rests', 'services_fail'),
    ('sendgrid:status=401', 'an_answer_is_lost', 'possible_duplicate'),
    ('sendgrid:status=401', 'an_answer_is_lost_to_the_careful',
     "status: 'uncertain'")])
def test_it_does_not_say_what_did_not_happen(tmp_path, fault, act, differs):
    with Simulator(faults=[fault]) as simulator, \
            demo.gateway_in(tmp_path, simulator) as (gateway, clock):
        played = demo.Demo(simulator, gateway, clock)
        with pytest.raises(demo.Differs, match=differs):
            getattr(played, act)()


def test_what_no_provider_took_is_told(tmp_path):
    with Simulator() as simulator, \
            demo.gateway_in(tmp_path, simulator) as (gateway, clock):
        played = demo.Demo(simulator, gateway, clock)
        played.both_are_well()
        simulator.ledger.clear()
        with pytest.raises(demo.Differs, match='Order 1'):
            played.show_what_was_taken()
