"""Names that options and settings take, for the help and for completion.

Their own modules import torch or pydantic, which would slow down `--help`. `tests/cli/test_choices.py` compares the
names here with the originals.
"""

from __future__ import annotations

from ..data.place import DATA_SETS
from ..files.shipped import shipped_folder
from ..latency.backend_names import BACKEND_SETTINGS, TOOL_NAMES

BACKENDS = tuple(BACKEND_SETTINGS)
TOOLS = TOOL_NAMES
DTYPES = ("float32", "int8")
UNITS = ("ns", "us", "ms", "s")
DATA = DATA_SETS
FORMATS = ("onnx", "int8", "torchscript", "torch_export", "state_dict")
PUBLISHED = ("proxylessnas", "once-for-all")
STRATEGIES = ("proxyless", "darts", "gumbel_darts", "enas", "random", "nni_proxyless_builtin")
OBJECTIVES = ("budget", "add_linear", "mul_log")
GRADIENTS = ("two_path", "full", "reinforce")


def spaces() -> list[str]:
    """Return the names of the spaces of this package."""
    return sorted(path.stem for path in shipped_folder("search_spaces").glob("*.yml"))


def experiments(file: str) -> list[str]:
    """Return the names of the shipped experiments that have a file, `config.yml` or `recipe.yml`."""
    return sorted(path.parent.name for path in shipped_folder("experiments").glob(f"*/{file}"))


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Return names for a sentence: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def braces(names: tuple[str, ...]) -> str:
    """Format choices as argparse does. The code that uses a value checks it, with its own message."""
    return f"{{{','.join(names)}}}"
