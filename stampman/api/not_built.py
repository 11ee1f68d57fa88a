"""What is agreed but not built yet: it says so by name."""

from flask import Blueprint

from stampman.helpers.exceptions import NotFound

blueprint = Blueprint('not_built', __name__)

# path, methods, what it will be
ROUTES = (
    ('/<domain>/webhooks/<service>', ('POST',), 'Taking delivery events'),
    ('/<domain>/suppressions/', ('GET', 'POST', 'DELETE'),
     'The suppression list'),
    ('/<domain>/services/<service>/drain', ('POST',), 'Draining a service'),
    ('/<domain>/services/<service>/resume', ('POST',),
     'Resuming a service'),
    ('/metrics', ('GET',), 'The metrics page'),
)


def _view(what):
    def not_built(**path):
        raise NotFound(f'{what} is not built yet.')
    return not_built


for _number, (_rule, _methods, _what) in enumerate(ROUTES):
    blueprint.add_url_rule(_rule, f'route_{_number}', _view(_what),
                           methods=_methods)
