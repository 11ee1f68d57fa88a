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
    AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StrictBool,
    StrictStr, ValidationError, model_validator)

from stampman.helpers import syntax
from stampman.helpers.exceptions import ConfigError, FieldError
from stampman.helpers.mail import Limits, problems

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
    return syntax.address(text) if '@' in text else domain_name(text)


def key_digest(key: str) -> bytes:
    """Return the SHA-256 by which a key is compared, never the key."""
    if key.startswith('sha256:'):
        return bytes.fromhex(key.removeprefix('sha256:'))
    return hashlib.sha256(key.encode()).digest()


Domain = Annotated[StrictStr, AfterValidator(domain_name)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Secret = Annotated[SecretStr, Field(min_length=1)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, `_comments` are not."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    @model_validator(mode='before')
    @classmethod
    def _without_comments(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items()
                    if not str(key).startswith('_') and key != '$schema'}
        return data


def absolute_url(text: str) -> str:
    """Return an absolute http(s) URL without its last slash."""
    url = urlsplit(text)
    if url.scheme not in ('http', 'https') or not url.hostname:
        raise ValueError('must be a URL like "https://api.example.com"')
    if url.query or url.fragment or url.username:
        raise ValueError('must not have a query, a fragment or a user')
    return text.rstrip('/')


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


class ServiceSettings(Settings):
    """What every service can be told; each provider adds its own.

    `priority`: the lowest is tried first. `timeout`: seconds that one call
    may take in all, for an email of ordinary size.
    """

    provider: StrictStr = ''
    priority: int = 1
    enabled: StrictBool = True
    base_url: BaseUrl | None = None
    proxy: StrictStr | None = None
    timeout: float = Field(10.0, gt=0, le=60)


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

    `expires_after` is in seconds, `rate` in messages per second.
    """

    domain: Domain
    services: dict[StrictStr, Any] = Field(min_length=1)
    allowed_senders: tuple[
        Annotated[StrictStr, AfterValidator(_allowed_sender)], ...] = ()
    on_uncertain: Literal['hold', 'failover'] = 'failover'
    expires_after: float = Field(DAY, ge=60, le=30 * DAY)
    rate: float | None = Field(None, gt=0, le=100_000)

    def allows(self, email: str) -> bool:
        """Say whether this pool may send from the address `email`."""
        allowed = self.allowed_senders or (self.domain,)
        return bool({'*', email, email.rpartition('@')[2]} & set(allowed))


class AdminConfig(Keyholder):
    """Somebody who may see and steer everything."""

    name: Annotated[StrictStr, Field(min_length=1)]


class Config(Settings):
    """The whole config file."""

    pools: tuple[PoolConfig, ...] = Field(min_length=1)
    admins: tuple[AdminConfig, ...] = ()
    public: StrictBool = True
    trusted_hosts: tuple[StrictStr, ...] = ()
    limits: Limits = Limits()


SettingsOf = Callable[[str], type[ServiceSettings]]


def load(path: Path, environ: Mapping[str, str],
         settings_of: SettingsOf) -> Config:
    """Return the config in `path`, each service's settings held to its model.

    `settings_of` gives the model of a provider's settings by its name, or
    raises KeyError with the names there are. Raises ConfigError that names
    every problem and its place.
    """
    raw = _read(path)
    filled, errors = fill(raw, environ)
    try:
        config = Config.model_validate(filled)
    except ValidationError as failure:
        config = None
        missing = {place for place, _ in errors}
        errors += [FieldError(*problem) for problem in problems(failure)
                   if problem[0] not in missing]
    services, more = _services(filled, settings_of)
    errors += more
    if config:
        errors += _contradictions(config)
    if errors:
        raise ConfigError(f'{path} is not valid:', errors=errors)
    return config.model_copy(update={'pools': tuple(
        pool.model_copy(update={'services': services[number]})
        for number, pool in enumerate(config.pools))})


def names_in(path: Path) -> frozenset[str]:
    """Return the environment variables that the file in `path` names."""
    try:
        return frozenset(VARIABLE.findall(path.read_text('utf-8')))
    except (OSError, UnicodeDecodeError):
        return frozenset()      # load() reports what is wrong with it


def _read(path):
    try:
        raw = json.loads(path.read_text('utf-8'), object_pairs_hook=_once)
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}. Set '
                          'STAMPMAN_CONFIG to the path of your config.'
                          ) from None
    except ValueError as error:     # also what is not UTF-8
        raise ConfigError(f'{path} is not JSON: {error}') from None
    if not isinstance(raw, dict):
        raise ConfigError(f'{path} must be a JSON object')
    return raw


def _once(pairs):
    keys = [key for key, _ in pairs]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f'the key "{min(twice)}" stands twice in one object')
    return dict(pairs)


def fill(raw: Any, environ: Mapping[str, str], place: str = ''):
    """Return `raw` with each `${NAME}` filled in, and what is missing.

    A variable that is not set is no problem in a service that is not
    enabled.
    """
    if isinstance(raw, dict):
        filled, errors = {}, []
        for key, value in raw.items():
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
            if name.startswith('_'):
                continue
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
        if settings.get('enabled') is False:
            return ServiceSettings(provider=provider, enabled=False), ()
        return None, _with_right_names(problems(failure), model)


def _with_right_names(found, model):
    """A wrong key is an error that names the right ones."""
    known = ', '.join(sorted(model.model_fields))
    return [(field, f'is not a setting here; these are: {known}'
             if message.startswith('is not a field') else message)
            for field, message in found]


def _contradictions(config):
    """What each part allows, and the whole does not."""
    errors, domains, keys = [], {}, {}
    holders = [(f'pools[{number}]', pool)
               for number, pool in enumerate(config.pools)]
    for place, pool in holders:
        if (first := domains.setdefault(pool.domain, place)) != place:
            errors.append(FieldError(
                f'{place}.domain', f'is the domain of {first} too'))
        if not any(not name.startswith('_')
                   and isinstance(service, dict)
                   and service.get('enabled', True)
                   for name, service in pool.services.items()):
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
    return errors
