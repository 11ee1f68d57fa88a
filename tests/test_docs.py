"""The pages in docs/ say what the program does."""

import re

import pytest

from stampman import cli
from stampman.helpers.config import Config
from stampman.helpers.delivery import MAX_CRASHES, MAX_UNCERTAIN, Timing
from stampman.services import providers, service_class
from stampman.simulator import Simulator, faults
from stampman.store._adding import KEY_LIFE

from provider_docs import (
    PAGE, ROOT, default, kind, outcome, page, runs, table, unknown)
from simulating import call, call_json

SIMULATOR = (ROOT / 'docs' / 'simulator.md').read_text('utf-8')
# Those of which each rule says itself whether the message is taken.
MAY_TAKE = [what for what, kind in faults.WHATS.items()
            if kind.took is None and what != 'reset']


def test_the_page_of_the_providers_is_what_the_program_says():
    assert PAGE.read_text('utf-8') == page(), (
        'docs/providers.md is out of date: write it anew with "make docs"')


@pytest.mark.parametrize('name', [
    'deploy', 'guarantees', 'performance', 'providers', 'simulator'])
def test_the_readme_leads_to_it(name):
    assert f'(docs/{name}.md)' in (ROOT / 'README.md').read_text('utf-8')


def test_a_setting_that_does_not_apply_is_told():
    told = {provider: unknown(service_class(provider).Settings)
            for provider in providers()}
    assert told.pop('smtp') == ['base_url', 'proxy']
    assert not any(told.values())
    section = page().partition('\n## smtp\n')[2]
    assert 'It does not know `base_url` and `proxy`.' in section


def test_the_page_of_the_simulator_has_its_table_of_faults():
    lines = [line for line in faults.__doc__.splitlines()
             if line.startswith('|')]
    assert len(lines) == 2 + len(faults.WHATS)
    assert '\n'.join(lines) in SIMULATOR
    for name in {*faults.READERS} - {'provider', 'what', 'headers'}:
        assert f'`{name}`' in SIMULATOR
    for word in faults.CLASSES + faults.PROVIDERS + faults.STAGES:
        assert f'`{word}`' in SIMULATOR


def test_it_is_told_which_faults_can_be_told_took():
    of_took, = (line for line in SIMULATOR.splitlines()
                if line.startswith('| `took` |'))
    assert re.findall('`(.+?)`', of_took)[2:-1] == MAY_TAKE
    for text in (cli.simulate.help, (ROOT / 'README.md').read_text('utf-8')):
        sentence, = re.findall(
            r'took=true[`"]([^.]*)\.', ' '.join(text.split()))
        assert all(what in sentence for what in MAY_TAKE)
    assert 'docs/simulator.md' in cli.simulate.help


def test_it_has_every_option_and_only_routes_that_are_there():
    for option in cli.simulate.params:
        assert f'`{option.opts[0]}`' in SIMULATOR
    routes = re.findall(r'^\| `([A-Z]+) (/\S*)` \|', SIMULATOR, re.MULTILINE)
    assert len(routes) == len(set(routes)) > 8
    with Simulator() as simulator:
        for method, path in routes:
            assert call(simulator, method, path).status != 405
        body = SIMULATOR.partition("-d '")[2].partition("'")[0]
        assert call_json(simulator, '/faults', body.strip('"')).status == 201


@pytest.mark.parametrize('provider', providers())
def test_every_provider_has_its_section_with_all_its_settings(provider):
    text = page().partition(f'\n## {provider}\n')[2].partition('\n## ')[0]
    common = page().partition('\n## Settings of every')[2].partition(
        '\n## ')[0]
    for name in service_class(provider).Settings.model_fields:
        assert f'| `{name}` |' in text + common
    for topic in service_class(provider).capabilities.described():
        assert f'| {topic} |' in text


def test_no_row_of_a_table_is_broken():
    width = 0
    for line in page().splitlines():
        cells = len(re.findall(r'(?<!\\)\|', line))
        assert cells in (0, width) or not width
        width = cells if line.startswith('|') else 0


@pytest.mark.parametrize('field, words', [
    ({'type': 'string'}, 'text'), ({'type': 'boolean'}, '`true` or `false`'),
    ({'type': 'string', 'format': 'password', 'minLength': 1}, 'a secret'),
    ({'enum': ['us', 'eu'], 'type': 'string'}, '`us`, `eu`'),
    ({'const': 'eu', 'type': 'string'}, '`eu`'),
    ({'type': 'number', 'exclusiveMinimum': 0, 'maximum': 60},
     'a number, over 0, up to 60'),
    ({'anyOf': [{'type': 'integer'}, {'type': 'string'}, {'type': 'null'}]},
     'a whole number or text')])
def test_a_setting_is_told_in_words(field, words):
    assert kind(field) == words


@pytest.mark.parametrize('value, words', [
    (None, ''), ('', ''), ('us', '`us`'), (True, '`true`'), (10.0, '`10.0`')])
def test_a_default_is_told_as_it_is_written(value, words):
    assert default(value) == words


def test_an_outcome_is_told_with_what_follows():
    assert outcome({'kind': 'refused', 'alert': True, 'domain_only': True,
                    'reason': 'x'}) == '`refused`, alert, domain'


def test_statuses_in_a_row_are_told_as_a_run():
    assert runs((421, 500, 503, 504, 200, 201, 202)) == [
        (421, 421), (500, 500), (503, 503), (504, 504), (200, 202)]


def test_a_bar_in_a_cell_stays_in_it():
    assert table(('a', 'b'), [('x|y', 'z')]) == (
        '| a | b |\n| --- | --- |\n| x\\|y | z |')


GUARANTEES = ' '.join(
    (ROOT / 'docs' / 'guarantees.md').read_text('utf-8').split())


@pytest.mark.parametrize('words, figure', [
    ('the lease (%g s) runs out', Timing().lease),
    ('the recording is tried for %g s', Timing().recording),
    ('what is in flight gets %g s', Timing().drain),
    ('For %g hours the same key', KEY_LIFE / 3600),
    ('the content of a settled message is deleted `keep_bodies` days (%g)',
     Config.model_fields['keep_bodies'].default),
    ('the message `keep_messages` days (%g) after',
     Config.model_fields['keep_messages'].default)])
def test_what_is_guaranteed_is_what_is_set(words, figure):
    assert (words % figure).lower() in GUARANTEES.lower()


def test_the_limits_that_are_guaranteed_are_those_of_the_code():
    assert (MAX_UNCERTAIN, MAX_CRASHES) == (3, 5)
    assert 'after three uncertain attempts it is held too' in GUARANTEES
    assert 'takes the process down with it, five times' in GUARANTEES


def test_the_tests_that_the_guarantees_name_are_there():
    named = re.findall(r'`(?:tests/)?((?:test_|simulation)[\w*]+(?:\.py)?)`',
                       GUARANTEES)
    assert len(named) > 5
    for name in named:
        assert list((ROOT / 'tests').glob(name)), name
