"""The providers that Stampman can send through: one file each.

A module without a leading underscore whose name is a provider's holds that
provider's service; adding a provider is adding a file.
"""

import importlib
import pkgutil

from stampman.services.base import AbstractEmailService

_NOT_PROVIDERS = frozenset({'base', 'pool', 'transport'})


def providers() -> tuple[str, ...]:
    """Return the names of all providers, sorted."""
    return tuple(sorted(
        module.name for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith('_')
        and module.name not in _NOT_PROVIDERS))


def service_class(provider: str) -> type[AbstractEmailService]:
    """Return the service of a provider.

    Raises KeyError that names all providers where there is none such.
    """
    if provider not in providers():
        raise KeyError(f'"{provider}" is not a provider; these are: '
                       f'{", ".join(providers())}')
    module = importlib.import_module(f'{__name__}.{provider}')
    return next(value for value in vars(module).values()
                if isinstance(value, type)
                and issubclass(value, AbstractEmailService)
                and value.provider == provider)
