"""All modules that can be planned, native and wrapped, as `cartoray.planning` wants them."""

from __future__ import annotations

from collections.abc import Mapping

from actors.modules import modules
from actors.wrapped.modules import aws_modules, provider_modules
from cartoray.jobs import Provider
from cartoray.planning import ACCOUNT_MODULE, Declaration


def catalogue(provider: Provider, *, wrapped: bool = False) -> Mapping[str, Declaration]:
    """The modules of `provider` by name; for AWS native ones where they are, unless `wrapped`.

    The account's own module is always native: Cartography has none for it.
    """
    if provider != "aws":
        return provider_modules()
    native = {name: module for name, module in modules().items() if not wrapped or name == ACCOUNT_MODULE}
    return {**native, **{name: module for name, module in aws_modules().items() if name not in native}}
