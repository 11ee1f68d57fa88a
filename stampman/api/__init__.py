"""Our own HTTP face: thin, strict, and browsable."""

from stampman.api import (
    batch, login, messages, not_built, openapi, pools, probes, sending)
from stampman.api.application import Api

BLUEPRINTS = (probes, openapi, login, pools, sending, batch, messages,
              not_built)


def create_api(gateway) -> Api:
    """Return the WSGI application that serves `gateway`."""
    api = Api(gateway)
    for module in BLUEPRINTS:
        api.register_blueprint(module.blueprint)
    return api
