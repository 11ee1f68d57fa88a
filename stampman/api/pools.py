"""The pools, and what serves them."""

from flask import Blueprint, current_app

from stampman.api import answers, auth, body
from stampman.api.addresses import url
from stampman.helpers.exceptions import InvalidFields, Unauthorized

blueprint = Blueprint('pools', __name__)


@blueprint.get('/')
def index():
    """The pools: one for each domain that this Stampman sends for.

    A pool is the services of one sending domain, in the order in which
    they are tried. An application posts an email to the pool's `send` URL,
    with the pool's API key; Stampman stores it and hands it to the first
    service that will take it.

    With an admin's key this page also shows the services, how they are,
    what each can carry, and how many messages wait.
    """
    return _pools(auth.caller())


@blueprint.post('/')
def index_by_key():
    """The pools, as an admin sees them.

    The same as a GET with an admin's key; the key stands in the JSON
    body::

        {"admin_api_key": "…"}
    """
    return _pools(_admin())


@blueprint.get('/<domain>/')
def pool(domain):
    """A pool: the services of one sending domain, in order of priority.

    Each email goes to the first service that takes it. A service that
    fails, or that holds us back, rests for a while and is skipped until
    then: with the pool's key, or an admin's, this page shows which. To an
    admin it also shows what each service can carry; an email that is more
    than that goes to the next one.
    """
    return _pool(domain, auth.caller())


@blueprint.post('/<domain>/')
def pool_by_key(domain):
    """A pool, as an admin sees it.

    The same as a GET with an admin's key; the key stands in the JSON
    body::

        {"admin_api_key": "…"}
    """
    return _pool(domain, _admin())


def _admin():
    """Return the admin whose key is in the JSON, and nothing else is."""
    data = body.read_json()
    asking = auth.caller(data)
    auth.demand(asking, admin=True)
    if data:
        raise InvalidFields(errors=[
            (field, 'is not a field that is known here') for field in data])
    return asking


def _pools(asking):
    gateway = current_app.gateway
    _open_to(asking)
    pools = [pool for pool in gateway.pools.values()
             if gateway.config.public or asking.admin
             or asking.pool == pool.domain]
    waiting = gateway.waiting() if asking.admin else {}
    return answers.PoolsAnswer(
        pools=[_answer(pool, asking, waiting, details=bool(asking.admin))
               for pool in pools],
        openapi_url=url('/openapi.json'),
        unserved={domain: _of_pool(waiting, domain) for domain, _ in waiting
                  if domain not in gateway.pools} or None).json_object()


def _pool(domain, asking):
    gateway = current_app.gateway
    _open_to(asking)
    if asking.is_anyone:
        auth.demand(asking, domain, pool=True, admin=True)
    return _answer(
        gateway.pools[domain], asking,
        gateway.waiting() if asking.admin else {}).json_object()


def _open_to(asking):
    """Raise Unauthorized for somebody unknown where nothing is public."""
    if not asking.is_anyone and not current_app.gateway.config.public:
        raise Unauthorized('This Stampman shows its pools only with a key, '
                           'as "Authorization: Bearer <key>".')


def _answer(pool, asking, waiting, details=True):
    return answers.PoolAnswer(
        domain=pool.domain, url=url(f'/{pool.domain}/'),
        send_url=url(f'/{pool.domain}/send'),
        messages_url=url(f'/{pool.domain}/messages/'),
        services=_services(pool, asking) if details else None,
        waiting=_of_pool(waiting, pool.domain) if asking.admin else None)


def _of_pool(waiting, domain):
    return {str(state): count for (pool, state), count in waiting.items()
            if pool == domain}


def _services(pool, asking):
    healths = current_app.gateway.health_of(pool.domain) \
        if asking.is_anyone else {}
    return [_service(service, healths.get(service.name), asking)
            for service in pool.services]


def _service(service, health, asking):
    return answers.ServiceAnswer(
        name=service.name, provider=service.provider,
        priority=service.settings.priority,
        **({'account': service.account,
            'carries': service.capabilities.described()}
           if asking.admin else {}),
        **({} if health is None else {
            'state': health.state, 'until': answers.rfc3339(health.until),
            'reason': health.reason or None}))
