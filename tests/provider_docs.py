"""Writes docs/providers.md, from what the program and its tests say.

The manual of a provider is its module's docstring, its settings are those
of its model, what it can carry is what it declares, and how its answers are
read is the data of its tests. `make docs` writes the page anew.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stampman.helpers.config import ServiceSettings
from stampman.services import providers, service_class
from stampman.services.base import FALLBACK, AbstractEmailService

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'providers.md'
INTRODUCTION = """\
# Providers

What each provider needs in `config.json`, what it can carry, and how
Stampman reads its answers. This page is written by `make docs` from the
program and its tests: change those, not the page.

A service is named in its pool, `"backup": {"provider": "mailgun", …}`; the
provider need not be given where the service has its name. An email that is
more than a service can carry is not cut: its outcome there is `unsupported`,
with the reason, before any call, and the next service is asked. An admin
sees the tables of what the services of a pool can carry at `/<domain>/`.

| outcome of an attempt | means |
|---|---|
| `accepted` | the provider took it, with an id as proof |
| `rejected` | this email is refused for good: no other is asked |
| `unsupported` | it cannot carry this email: the next is asked |
| `refused` | it will not serve you: the next is asked, and it rests |
| `deferred` | not now, and surely not taken: the next is asked |
| `uncertain` | nobody knows whether it took it: `on_uncertain` decides |

Beside it may stand: *alert*, a person should look; *pace*, it asks for fewer
emails and rests until then; *domain*, it is about the sender's domain, and
other pools go on with the account; *rests*, though it took the email, it
may never send it.

No answer, or half of one, is `deferred` where the request was not written
whole, and else `uncertain`. An answer that the provider's own table does not
know is read by its status, by the first line that fits:

"""
COMMON = """

## Settings of every service

{settings}
"""
SECTION = """
## {provider}

{manual}

### What `{provider}` needs

{settings}{less}

### What `{provider}` can carry

{carries}
"""
ANSWERS = """
### How the answers of `{provider}` are read

{answers}
"""
FLAGS = {'alert': 'alert', 'throttled': 'pace', 'domain_only': 'domain',
         'stalled': 'rests'}
LESS = '\n\nIt does not know {names}.'
SETTING = 'setting', 'is', 'by default'
# What an HTTP service can be told, and perhaps not another one.
OF_HTTP = {'base_url': 'https://api.example.com',
           'proxy': 'http://proxy.example.com:3128'}
TYPES = {'string': 'text', 'boolean': '`true` or `false`',
         'integer': 'a whole number', 'number': 'a number'}
BOUNDS = {'exclusiveMinimum': 'over', 'minimum': 'from',
          'exclusiveMaximum': 'below', 'maximum': 'up to'}


def page() -> str:
    """Return docs/providers.md as it should be."""
    return ''.join((
        INTRODUCTION, table(('HTTP', 'outcome', 'why'), fallbacks()),
        COMMON.format(settings=table(SETTING, settings(ServiceSettings))),
        *map(section, providers())))


def section(provider: str) -> str:
    """Return what there is to say of a provider."""
    service = service_class(provider)
    own = list(settings(service.Settings, besides=ServiceSettings))
    less = ' and '.join(f'`{name}`' for name in unknown(service.Settings))
    text = SECTION.format(
        provider=provider,
        manual=inspect.getdoc(sys.modules[service.__module__]),
        settings=table(SETTING, own) if own else 'Nothing.',
        less=LESS.format(names=less) if less else '',
        carries=table(*carried(service)))
    data = ROOT / 'tests' / 'providers' / f'{provider}.json'
    if not data.exists():
        return text
    return text + ANSWERS.format(
        provider=provider,
        answers=table(*answers(json.loads(data.read_text('utf-8')))))


def settings(model: type[ServiceSettings], besides: type | None = None
             ) -> Iterator[tuple[str, str, str]]:
    """Yield (name, what it is, its default) of the settings of a model,
    those left out that are the same in the model `besides`."""
    known = besides.model_json_schema()['properties'] if besides else {}
    schema = model.model_json_schema()
    for name, field in schema['properties'].items():
        if field != known.get(name):
            needed = name in schema.get('required', ())
            yield (f'`{name}`', kind(field), 'it must be given' if needed
                   else default(field.get('default')))


def unknown(model: type[ServiceSettings]) -> list[str]:
    """Return the settings of every service that this one refuses."""
    try:
        model(**OF_HTTP)
    except ValidationError as error:
        refused = {one['loc'][0] for one in error.errors() if one['loc']}
        return [name for name in OF_HTTP if name in refused]
    return []


def kind(field: dict[str, Any]) -> str:
    """Return in words what a setting may be, from its JSON schema."""
    if 'anyOf' in field:
        return ' or '.join(kind(one) for one in field['anyOf']
                           if one.get('type') != 'null')
    if 'enum' in field or 'const' in field:
        values = field.get('enum') or [field['const']]
        return ', '.join(f'`{value}`' for value in values)
    if field.get('format') == 'password':
        return 'a secret'
    return ', '.join([TYPES[field['type']], *(
        f'{word} {field[bound]:g}' for bound, word in BOUNDS.items()
        if bound in field)])


def default(value: Any) -> str:
    """Return a setting's default; '' is none, or depends on others."""
    return '' if value in (None, '') else f'`{json.dumps(value)}`'.replace(
        '"', '')


def carried(service: type[AbstractEmailService]) -> tuple[tuple, list]:
    """Return head and rows of what is carried; where a service can be told
    of vendors, by the headers of each."""
    columns = {'it carries': service.capabilities}
    if 'vendor' in service.Settings.model_fields:
        columns = {f'`{vendor}`' if vendor else 'without `vendor`': service(
            'any', service.Settings(host='mail.example', vendor=vendor),
            'mail.example', None).capabilities
            for vendor in (None, *vendors(service))}
    told = [one.described() for one in columns.values()]
    return ('of an email', *columns), [
        (topic, *(one[topic] for one in told)) for topic in told[0]]


def vendors(service: type[AbstractEmailService]) -> list[str]:
    """Return the vendors that a service can be told of."""
    field = service.Settings.model_json_schema()['properties']['vendor']
    return next(one['enum'] for one in field['anyOf'] if 'enum' in one)


def answers(data: dict[str, list]) -> tuple[tuple, list]:
    """Return head and rows of the answers in a provider's data, those of
    one status, or one step, that end in the same way in one row."""
    if 'replies' in data:
        head = 'at', 'it replies', 'outcome'
        found = [(case['step'], case['reply'], outcome(
            {'kind': case['kind'], **dict.fromkeys(case['flags'], True)}))
            for case in data['replies']]
    else:
        head = 'HTTP', 'it says', 'outcome'
        found = [(str(case['answer'][0]), re.sub(
            r' as HTTP \d{3}$', '', case['name']), outcome(case['outcome']))
            for case in sorted(data['answers'], key=_status)]
    rows = {}
    for place, words, end in found:
        rows.setdefault(place, {}).setdefault(end, []).append(words)
    return head, [(place, '; '.join(dict.fromkeys(words)), end)
                  for place, ends in rows.items()
                  for end, words in ends.items()]


def _status(case):
    return case['answer'][0]


def fallbacks() -> Iterator[tuple[str, str, str]]:
    """Yield (statuses, outcome, why) of what is known by the status."""
    for rule in FALLBACK:
        numbers = [f'{first}\u2013{last}' if last > first else str(first)
                   for first, last in runs(rule.statuses)]
        yield (', '.join(numbers) or 'any other',
               outcome({'kind': rule.kind, **rule.flags}), rule.note)


def runs(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first and last of each run of three or more numbers, and
    the others as runs of one."""
    found = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [pair for run in found for pair in (
        [(run[0], run[-1])] if len(run) > 2 else [(n, n) for n in run])]


def outcome(expected: dict[str, Any]) -> str:
    """Return the outcome of an answer in the words of this page."""
    flags = [word for flag, word in FLAGS.items() if expected.get(flag)]
    return ', '.join([f'`{expected["kind"]}`', *flags])


def table(head, rows) -> str:
    """Return a table of Markdown."""
    return '\n'.join(
        '| ' + ' | '.join(text.replace('|', '\\|') for text in row) + ' |'
        for row in (head, ('---',) * len(head), *rows))


if __name__ == '__main__':
    PAGE.write_text(page(), 'utf-8')
