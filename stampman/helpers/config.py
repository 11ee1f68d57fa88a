"""The config file, its `${NAME}`s, and the environment of the process.

The frame stands here; each provider declares the settings of its services
as a model of its own, and the gateway holds a service to its provider's.
Every problem is collected with its place and reported at once.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr,
    StrictBool, StrictStr, ValidationError, model_validator)

from stampman.helpers import syntax
from stampman.helpers.exceptions import ConfigError, FieldError
from stampman.helpers.mail import REQUIRED, UNKNOWN, Limits, problems

DAY = 86400.0       # seconds
VARIABLE = re.compile(r'\$\{([A-Za-z_][A-Za-z0-9_]*)\}')
SERVICE_NAME = re.compile('[a-z0-9][a-z0-9_-]{0,62}')


def domain_name(text: str) -> str:
    """Return a domain as lower-case A-label; ValueError if it is none."""
    try:
        return syntax.address(f'postmaster@{text}').rpartition('@')[2]
    except ValueError:
        raise ValueError('is not a domain name') from None


def _key(key: SecretStr) -> SecretStr:
    """A key stands in a header: printable ASCII, and long enough."""
    text = key.get_secret_value()
    if text.startswith('sha256:'):
        if not re.fullmatch(r'sha256:[0-9a-f]{64}', text):
            raise ValueError('must be "sha256:" and 64 hex digits')
    elif not re.fullmatch(r'[!-~]{16,}', text):
        raise ValueError('must be at least 16 printable ASCII characters '
                         'without spaces')
    return key


def _allowed_sender(text: str) -> str:
    if text == '*':
        return text
    if '@' in text:
        return syntax.address(text).lower()
    return domain_name(text)


def key_digest(key: str) -> bytes:
    """Return the SHA-256 by which a key is compared, never the key."""
    if key.startswith('sha256:'):
        return bytes.fromhex(key.removeprefix('sha256:'))
    return hashlib.sha256(key.encode()).digest()


Domain = Annotated[StrictStr, AfterValidator(domain_name)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Secret = Annotated[SecretStr, Field(min_length=1)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True)


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):     # which Python takes for 0 and 1
        raise ValueError('must be a number')
    return value


Whole = Annotated[int, BeforeValidator(_not_bool)]
Number = Annotated[float, BeforeValidator(_not_bool)]


def absolute_url(text: str) -> str:
    """Return an absolute http(s) URL without its last slash."""
    url = _http_url(text)
    if url.query or url.fragment or '@' in url.netloc:
        raise ValueError('must not have a query, a fragment or a user')
    return text.rstrip('/')


def _http_url(text):
    try:
        url = urlsplit(text)
        if not (re.fullmatch('[!-~]+', text) and url.hostname
                and url.scheme in ('http', 'https') and url.port != 0):
            raise ValueError
    except ValueError:
        raise ValueError(
            'must be a URL like "https://api.example.com"') from None
    return url


def proxy_url(text: str) -> str:
    """Return the URL of an HTTP proxy; it may hold a user and a password."""
    if _http_url(text).scheme != 'http':
        raise ValueError('must be a URL like "http://proxy.example:3128"')
    return text


def base_url(text: str) -> str:
    """Return the URL of a provider's API without its last slash.

    Raises ValueError for plain http to any other host than loopback: the
    provider's key would cross the network in the clear.
    """
    url = urlsplit(absolute_url(text))
    if url.scheme == 'http' and url.hostname not in (
            'localhost', '127.0.0.1', '::1'):
        raise ValueError('must be https; plain http is for loopback only')
    return text.rstrip('/')


BaseUrl = Annotated[StrictStr, AfterValidator(base_url)]
ProxyUrl = Annotated[StrictStr, AfterValidator(proxy_url)]


class ServiceSettings(Settings):
    """What every service can be told; each provider adds its own.

    `priority`: the lowest is tried first. `timeout`: seconds that one call
    may take in all, for an email of ordinary size.
    """

    provider: StrictStr = ''
    priority: Whole = 1
    enabled: StrictBool = True
    base_url: BaseUrl | None = None
    proxy: ProxyUrl | None = Field(None, repr=False)
    timeout: Number = Field(10.0, gt=0, le=60)


class Keyholder(Settings):
    """Somebody known by a key; several keys, while one replaces another."""

    api_key: Key | None = None
    api_keys: tuple[Key, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value()
                     for key in (self.api_key, *self.api_keys) if key)

    @model_validator(mode='after')
    def _has_key(self):
        if not self.keys:
            raise ValueError('needs an "api_key" or "api_keys"')
        return self


class PoolConfig(Keyholder):
    """One sending domain, its keys and its services.

    `expires_after` and `uncertain_wait` (for evidence, before the services
    behind are asked) are in seconds, `rate` in messages per second.
    """

    domain: Domain
    services: dict[StrictStr, Any] = Field(min_length=1)
    allowed_senders: tuple[
        Annotated[StrictStr, AfterValidator(_allowed_sender)], ...] = ()
    on_uncertain: Literal['hold', 'failover'] = 'failover'
    uncertain_wait: Number = Field(30, ge=0, le=3600)
    expires_after: Number = Field(DAY, ge=60, le=30 * DAY)
    rate: Annotated[Number, Field(gt=0, le=100_000)] | None = None

    def allows(self, email: str) -> bool:
        """Say whether this pool may send from the address `email`."""
        allowed = self.allowed_senders or (self.domain,)
        email = email.lower()
        return bool({'*', email, email.rpartition('@')[2]} & set(allowed))


class AdminConfig(Keyholder):
    """Somebody who may see and steer everything."""

    name: Annotated[StrictStr, Field(min_length=1)]


class Config(Settings):
    """The whole config file.

    `keep_bodies` and `keep_messages` are days after which the content, and
    the whole, of a settled message is deleted.
    """

    pools: tuple[PoolConfig, ...] = Field(min_length=1)
    admins: tuple[AdminConfig, ...] = ()
    public: StrictBool = True
    trusted_hosts: tuple[StrictStr, ...] = ()
    keep_bodies: Whole = Field(30, ge=1, le=3650)
    keep_messages: Whole = Field(90, ge=2, le=3650)
    limits: Limits = Limits()


SettingsOf = Callable[[str], type[ServiceSettings]]


def load(path: Path, environ: Mapping[str, str],
         settings_of: SettingsOf) -> Config:
    """Return the config in `path`, each service's settings held to its model.

    `settings_of` gives the model of a provider's settings by its name, or
    raises KeyError with the names there are. Raises ConfigError that names
    every problem and its place.
    """
    filled, errors = fill(_read(path), environ)
    unset = {error.field for error in errors}
    config = None
    try:
        config = Config.model_validate(filled)
    except ValidationError as failure:
        errors += [FieldError(where, _naming_the_right(message, where))
                   for where, message in problems(failure)
                   if where not in unset]
    services, more = _services(filled, settings_of)
    errors += [error for error in more if error.field not in unset]
    if config:
        errors += _contradictions(config)
    if errors:
        raise ConfigError(f'{path} is not valid:', errors=errors)
    return config.model_copy(update={'pools': tuple(
        pool.model_copy(update={'services': services[number]})
        for number, pool in enumerate(config.pools))})


# What a place in the file, without its last step, is read as.
_MODELS = {'': Config, 'pools': PoolConfig, 'admins': AdminConfig,
           'limits': Limits}


def _naming_the_right(message, where):
    model = _MODELS[re.sub(r'\[.*', '', where.rpartition('.')[0])]
    return _with_right_names(message, model)


def _with_right_names(message, model):
    """A wrong key is an error that names the right ones."""
    if message != UNKNOWN:
        return message
    known = ', '.join(sorted(model.model_fields))
    return f'is not a setting here; these are: {known}'


def names_in(path: Path) -> frozenset[str] | None:
    """Return the environment variables that the file in `path` names.

    None where it cannot be read; load() says why.
    """
    try:
        return frozenset(VARIABLE.findall(path.read_text('utf-8')))
    except (OSError, UnicodeDecodeError):
        return None


def _read(path):
    try:
        raw = json.loads(path.read_text('utf-8'), object_pairs_hook=_once,
                         parse_constant=_no_constant)
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}. Set '
                          'STAMPMAN_CONFIG to the path of your config.'
                          ) from None
    except RecursionError:
        raise ConfigError(f'{path} is nested too deeply') from None
    except ValueError as error:     # also what is not UTF-8
        raise ConfigError(f'{path} is not JSON: {error}') from None
    if not isinstance(raw, dict):
        raise ConfigError(f'{path} must be a JSON object')
    raw.pop('$schema', None)
    return raw


def _no_constant(name):
    raise ValueError(f'{name} is not a number in JSON')


def _once(pairs):
    keys = [key for key, _ in pairs]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f'the key "{min(twice)}" stands twice in one object')
    return dict(pairs)


def fill(raw: Any, environ: Mapping[str, str], place: str = ''):
    """Return `raw` with each `${NAME}` filled in, and what is missing.

    Keys that begin with `_` are comments: they are left out. A variable
    that is not set is no problem in a service that is not enabled.
    """
    if isinstance(raw, dict):
        filled, errors = {}, []
        for key, value in raw.items():
            if key.startswith('_'):
                continue
            filled[key], more = fill(
                value, environ, f'{place}.{key}' if place else key)
            errors += more
        return filled, [] if filled.get('enabled') is False else errors
    if isinstance(raw, list):
        pairs = [fill(value, environ, f'{place}[{number}]')
                 for number, value in enumerate(raw)]
        return [value for value, _ in pairs], [
            error for _, errors in pairs for error in errors]
    if not isinstance(raw, str):
        return raw, []
    unset = [name for name in VARIABLE.findall(raw) if not environ.get(name)]
    errors = [FieldError(place, f'the environment variable {name} is not set')
              for name in unset]
    text = VARIABLE.sub(lambda m: environ.get(m[1]) or m[0], raw)
    if VARIABLE.fullmatch(raw):     # a whole scalar may also be a boolean
        return {'true': True, 'false': False}.get(text, text), errors
    return text, errors


def _services(filled, settings_of):
    """Hold each service to its provider's settings; collect the problems."""
    parsed, errors = [], []
    pools = filled.get('pools')
    for number, pool in enumerate(pools if isinstance(pools, list) else ()):
        parsed.append({})
        services = pool.get('services') if isinstance(pool, dict) else None
        if not isinstance(services, dict):
            continue
        for name, settings in services.items():
            place = f'pools[{number}].services.{name}'
            parsed[-1][name], more = _service(name, settings, settings_of)
            errors += [FieldError(
                f'{place}.{field}' if field else place, message)
                for field, message in more]
    return parsed, errors


def _service(name, settings, settings_of):
    if not SERVICE_NAME.fullmatch(name):
        return None, [('', 'a service is named with a-z, 0-9, _ and -')]
    if not isinstance(settings, dict):
        return None, [('', 'must be an object')]
    provider = settings.get('provider', name)
    try:
        model = settings_of(provider)
    except KeyError as unknown:
        return None, [('provider', str(unknown.args[0]))]
    try:
        return model.model_validate({**settings, 'provider': provider}), ()
    except ValidationError as failure:
        found = problems(failure)
    unused = None
    if settings.get('enabled') is False:
        unused = ServiceSettings(provider=provider, enabled=False)
        found = [(where, message) for where, message in found
                 if not _may_wait(settings, where, message)]
    return unused, [(where, _with_right_names(message, model))
                    for where, message in found]


def _may_wait(settings, where, message):
    """Whether a problem is none as long as the service is not enabled."""
    value = settings.get(where)
    is_unset = isinstance(value, str) and VARIABLE.search(value)
    return message == REQUIRED or is_unset and message != UNKNOWN


def _contradictions(config):
    """What each part allows, and the whole does not."""
    errors, domains, keys = [], {}, {}
    holders = [(f'pools[{number}]', pool)
               for number, pool in enumerate(config.pools)]
    for place, pool in holders:
        if (first := domains.setdefault(pool.domain, place)) != place:
            errors.append(FieldError(
                f'{place}.domain', f'is the domain of {first} too'))
        if not any(isinstance(service, dict) and service.get('enabled', True)
                   for service in pool.services.values()):
            errors.append(FieldError(
                f'{place}.services', 'at least one must be enabled'))
    holders += [(f'admins[{number}]', admin)
                for number, admin in enumerate(config.admins)]
    for place, holder in holders:
        for key in holder.keys:
            first = keys.setdefault(key_digest(key), place)
            if first != place:
                errors.append(FieldError(
                    f'{place}.api_key', f'is a key of {first} too'))
    if config.keep_messages < config.keep_bodies:
        errors.append(FieldError(
            'keep_messages', 'must not be less than keep_bodies'))
    return errors
