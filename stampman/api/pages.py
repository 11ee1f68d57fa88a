"""The browsable pages: the same data as the JSON, for people.

The docstring of a view is the text of its page.
"""

import inspect
import json
import re

from flask import current_app, g, render_template, request
from markupsafe import Markup, escape

# The page of each view. All others show the JSON as it is.
TEMPLATES = {
    'pools.index': 'pools.html', 'pools.index_by_key': 'pools.html',
    'pools.pool': 'pool.html', 'pools.pool_by_key': 'pool.html',
    'sending.form': 'send.html', 'sending.send': 'sent.html',
    'messages.index': 'messages.html', 'messages.message': 'message.html',
    'messages.retry': 'message.html', 'messages.cancel': 'message.html',
    'messages.resolve': 'message.html', 'messages.delete': 'message.html',
    'messages.erase': 'message.html', 'login.form': 'login.html',
}
# Characters that turn text around or hide in it.
_HIDDEN = re.compile('[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e'
                     '\u2060-\u206f\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]')


def visible(text: str) -> str:
    """Return `text` with what cannot be seen written out."""
    return _HIDDEN.sub(lambda found: f'[U+{ord(found[0]):04X}]', text)


def render(data: dict, status: int) -> str:
    """Return the page of `data`, answered with `status`."""
    template = _template(data, status)
    domain = (request.view_args or {}).get('domain')
    return render_template(
        template, data=data, status=status, path=request.path,
        domain=domain, served=domain in current_app.gateway.pools,
        text=documentation(), source=json.dumps(
            data, ensure_ascii=False, indent=2),
        form=g.get('form', {}),
        problem=data if status >= 400 else None)


def _template(data, status):
    if status < 400 or 'id' in data:
        return TEMPLATES.get(request.endpoint, 'page.html')
    if 'form' in g:     # what was typed is not lost
        return FORMS.get(request.endpoint, 'problem.html')
    return 'problem.html'


FORMS = {'sending.send': 'send.html', 'login.sign_in': 'login.html'}


def documentation() -> Markup:
    """Return the docstring of the view as HTML."""
    view = current_app.view_functions.get(request.endpoint)
    return to_html(inspect.getdoc(view) or '') if view else Markup('')


def to_html(text: str) -> Markup:
    """Return a docstring as HTML: paragraphs, `code`, indented blocks."""
    blocks = re.split(r'\n\s*\n(?=\S)', text.strip())
    return Markup('\n').join(
        part for block in blocks for part in _block(block))


def _block(block):
    head, _, code = block.partition('::\n\n')
    if code or block.endswith('::'):
        if head := head.strip():
            yield Markup('<p>{}:</p>').format(_inline(head))
        yield Markup('<pre>{}</pre>').format(inspect.cleandoc(code))
    else:
        yield Markup('<p>{}</p>').format(_inline(block))


def _inline(text):
    pieces = re.split('`([^`]+)`', text)
    return Markup('').join(
        Markup('<code>{}</code>').format(piece) if number % 2
        else escape(piece) for number, piece in enumerate(pieces))
