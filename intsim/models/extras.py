"""The optional packages that models need, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str) -> Any:
    """The module of that name. Raises ModuleNotFoundError, saying what to install, where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        package = module.partition(".")[0]
        if missing.name is None or missing.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed; models need it: pip install 'intsim[models]'", name=package
        ) from None
