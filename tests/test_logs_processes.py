"""Real processes: what Python and gunicorn print by themselves."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

POOL_KEY = 'pool-key-canary-1f6c'
OTP = 'OTP-CANARY-918273'


def _program(tmp_path, text):
    path = tmp_path / 'program.py'
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True,
        timeout=20, env={'PYTHONPATH': str(Path(__file__).parents[1])})


def test_what_nobody_catches_is_logged_without_its_message(tmp_path):
    ended = _program(tmp_path, f'''
import sys, threading
from stampman import logs

class Falls:
    def __del__(self):
        raise ValueError('{OTP}')

logs.setup(sys.stderr)
logs.log_uncaught()
thread = threading.Thread(target=lambda: int('{OTP}'))
thread.start()
thread.join()
Falls()
raise KeyError('{OTP}')
''')
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1 and OTP not in ended.stderr
    assert [(line['level'], line['error']['class']) for line in lines] == [
        ('critical', name) for name in (
            'ValueError', 'ValueError', 'KeyError')]


GUNICORN = f'''
import sys
from stampman import logs
logs.setup(sys.stderr, ['{POOL_KEY}'])
logger_class = logs.gunicorn_logger
bind = '127.0.0.1:0'
accesslog = '-'

def app(environ, start_response):
    raise ValueError('{OTP}')
'''


def test_gunicorn_writes_as_we_do_and_shows_no_query(tmp_path):
    (tmp_path / 'served.py').write_text(GUNICORN)
    server = subprocess.Popen(
        [sys.executable, '-m', 'gunicorn', '-c', 'served.py', 'served:app'],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={'PYTHONPATH': str(Path(__file__).parents[1])})
    try:
        lines = []
        while not lines or 'Booting worker' not in lines[-1]['event']:
            lines.append(json.loads(server.stderr.readline()))
        address = next(line['event'] for line in lines
                       if 'Listening at' in line['event']).split()[2]
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.build_opener(
                urllib.request.ProxyHandler({})).open(
                f'{address}/x?key={POOL_KEY}&otp={OTP}', timeout=10)
    finally:
        server.terminate()
        out, rest = server.communicate(timeout=20)
    later = [json.loads(line) for line in rest.splitlines()]
    failed = next(line for line in later if line['level'] == 'error')
    assert failed['event'] == 'Error handling request GET /x?[query]'
    assert failed['error']['class'] == 'ValueError'
    assert lines[0]['event'].startswith('Starting gunicorn')
    assert OTP not in out + rest and POOL_KEY not in out + rest
