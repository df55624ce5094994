"""Train, load and run Transformers, and see what they attend to.

    >>> import regard
    >>> model = regard.load("runs/en-de")  # doctest: +SKIP
    >>> model.translate("A dog runs.")  # doctest: +SKIP

Importing this package costs nothing: a public name is fetched from its module when it is first used, so that
no torch is loaded by `import regard` or `regard --help`.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.config import ModelConfig as ModelConfig
    from regard.config_recurrent import RecurrentConfig as RecurrentConfig
    from regard.conversion import convert as convert
    from regard.data.tokenizers import Tokenizer as Tokenizer
    from regard.data.world import World as World
    from regard.errors import CheckpointError as CheckpointError
    from regard.errors import ConfigError as ConfigError
    from regard.errors import DataError as DataError
    from regard.errors import DependencyError as DependencyError
    from regard.errors import RegardError as RegardError
    from regard.errors import TrainingError as TrainingError
    from regard.generate.config import SearchConfig as SearchConfig
    from regard.model import Model as Model
    from regard.model import load as load
    from regard.model import train as train
    from regard.models.families import preset as preset
    from regard.tasks.looking_checkpoints import looks as looks

    __version__: str

# Every public name and the module that holds it: the one list that `__all__`, `dir` and the tests read.
_HOMES: dict[str, str] = {
    "CheckpointError": "regard.errors",
    "ConfigError": "regard.errors",
    "DataError": "regard.errors",
    "DependencyError": "regard.errors",
    "Model": "regard.model",
    "ModelConfig": "regard.config",
    "RecurrentConfig": "regard.config_recurrent",
    "RegardError": "regard.errors",
    "SearchConfig": "regard.generate.config",
    "Tokenizer": "regard.data.tokenizers",
    "TrainingError": "regard.errors",
    "World": "regard.data.world",
    "convert": "regard.conversion",
    "load": "regard.model",
    "looks": "regard.tasks.looking_checkpoints",
    "preset": "regard.models.families",
    "train": "regard.model",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def _version() -> str:
    """Read the installed version; a source tree that was never installed says so in its version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("regard")
    except PackageNotFoundError:
        return "0+uninstalled"


def _import(module: str) -> Any:
    """Import a module, and torch with it, without looking for garbage meanwhile: a fifth of the time goes into that.

    What torch brings lives as long as the process. It is set apart, so that nobody looks through it later either.
    """
    looks, is_new = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        return import_module(module)
    finally:
        if is_new and "torch" in sys.modules:
            gc.freeze()
        if looks:
            gc.enable()


def __getattr__(name: str) -> Any:
    """Fetch a public name from its module on first use, and keep it."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(_import(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
