"""Two web processes and two workers on one PostgreSQL, killed, or robbed of
their server, in mid-send; the oracle of the crash tests judges."""

import itertools

import pytest

from stampman.simulator import Simulator

from crashing.chaos import Chaos, run_chaos
from crashing.running import PATIENCE, POOLS, Program, Site, until

pytestmark = pytest.mark.long


class Robbed(Chaos):
    """Chaos that strikes the database server, too."""

    def __init__(self, server, *about):
        super().__init__(*about)
        self.server = server
        self.restarts = 0

    def killer(self, chance, _):
        """Strike a process and the server in turn."""
        for turn in itertools.count():
            if self.over.wait(chance.uniform(1.0, 2.5)):
                return
            victim = chance.choice(self.programs)
            if turn % 2:
                chance.choice([self.kill_all, self.kill_one, self.freeze])(
                    victim)
                continue
            chance.choice([lambda: self.server.restart('immediate'),
                           lambda: self.server.restart('fast'),
                           self.kill_server])()
            self.restarts += 1

    def kill_server(self):
        self.server.kill()
        self.server.start()

    def figures(self):
        return {**super().figures(), 'restarts': self.restarts}


def test_chaos_of_processes_and_server_loses_nothing(
        tmp_path, capsys, own_postgres, url):
    figures = run_chaos(
        tmp_path, capsys, lambda *about: Robbed(own_postgres, *about),
        url=url)
    assert figures['restarts'] > 2 and figures['acknowledged'] > 50


@pytest.mark.parametrize('policy', POOLS)
@pytest.mark.parametrize('moment', [
    'within add_all', 'after add_all', 'before end', 'within end',
    'after end'])
def test_what_a_killed_web_process_leaves_a_worker_takes_over(
        tmp_path, url, policy, moment):
    with Simulator() as simulator, Site(
            tmp_path, simulator, url=url) as site:
        web = Program(site, 'web', 'web-1', worker='off')
        web.strike(f'{moment} 1 SIGKILL group')
        with web, Program(site, 'worker', 'worker-1') as worker:
            assert web.send(POOLS[policy], 'Order 1').status is None
            web.process.wait(PATIENCE)
            until(site.is_quiet, lambda: worker.log)
            assert len(site.stored()) == (moment != 'within add_all')
            assert worker.stop() == 0
        site.judge()


def test_a_worker_that_is_killed_in_mid_send_leaves_it_to_another(
        tmp_path, url):
    with Simulator() as simulator, Site(
            tmp_path, simulator, url=url) as site:
        one = Program(site, 'worker', 'worker-1')
        one.strike('after begin 2 SIGKILL group')
        for number in range(8):
            site.accept(list(POOLS.values())[number % 2], f'Order {number}')
        with one, Program(site, 'worker', 'worker-2') as two:
            until(lambda: not one.runs or site.is_quiet(), lambda: two.log)
            until(site.is_quiet, lambda: two.log)
            assert two.stop() == 0
        site.judge()
