"""Whether this process lives, and whether it can accept messages."""

from flask import Blueprint, current_app

from stampman.api import problems

blueprint = Blueprint('probes', __name__)


@blueprint.get('/healthz')
def healthz():
    """Say that the process lives; depends on nothing else."""
    return {'status': 'ok'}


@blueprint.get('/readyz')
def readyz():
    """Say whether messages can be accepted now, and what is wrong."""
    ready, details = current_app.gateway.readiness()
    if ready:
        return {'status': 'ok', 'checks': details}
    return problems.document(
        503, 'not_ready', 'Not ready', 'No message can be accepted now.',
        checks=details), 503, {'Retry-After': '5'}
