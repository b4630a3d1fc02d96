"""Optional packages: imported where they are used, named with a remedy when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from glm_core.errors import MissingExtraError


def require(module: str, *, extra: str, package: str | None = None) -> ModuleType:
    """Import an optional module, or say which command installs it.

    Args:
        module: name as in an import statement, for example ``"timm"`` or ``"pyarrow.parquet"``.
        extra: the extra of pyproject.toml that brings it.
        package: name of the distribution where it differs from the module's.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module is not installed. A module that is installed and fails
            inside its own import raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        name = package or top
        raise MissingExtraError(f'{extra} needs {name}: pip install -e ".[{extra}]"') from error
