"""Imports of other packages: what is changed, and that nothing else is."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest

from nni_proxyless.adapters import import_hook
from tests.helpers import REPOSITORY


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that notes whether `ast.Str` exists and fails on request, and whose import is changed."""
    (tmp_path / "noting.py").write_text(
        "import ast, sys\nhas_str = 'Str' in vars(ast)\nif 'fail' in sys.modules: raise ImportError('on request')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(import_hook._AROUND, "noting", import_hook._with_ast_str)
    monkeypatch.delitem(vars(ast), "Str", raising=False)
    yield "noting"  # type: ignore[misc]
    sys.modules.pop("noting", None)


def test_a_name_that_python_3_14_lacks_exists_during_the_import_only(module: str) -> None:
    assert importlib.import_module(module).has_str
    assert "Str" not in vars(ast)


def test_after_a_failed_import_all_is_as_before(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fail", ast)
    with pytest.raises(ImportError, match="on request"):
        importlib.import_module(module)
    assert "Str" not in vars(ast)


def test_a_module_looks_as_if_its_own_loader_had_imported_it(module: str) -> None:
    spec = importlib.import_module(module).__spec__
    assert spec is not None
    assert type(spec.loader) is importlib.machinery.SourceFileLoader


def test_other_modules_are_left_to_python() -> None:
    finder = import_hook.AdaptedImports()
    assert finder.find_spec("json") is None
    assert finder.find_spec("nni") is None
    assert sum(isinstance(one, import_hook.AdaptedImports) for one in sys.meta_path) == 1
    import_hook.install()
    assert sum(isinstance(one, import_hook.AdaptedImports) for one in sys.meta_path) == 1


@pytest.mark.parametrize(
    ("version", "replaced"), [("2.0.9.post0", False), ("2.1.0", True), ("2.6.6", True), (None, False)]
)
def test_nnis_loader_is_replaced_from_lightning_2_1_on(
    version: str | None, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_hook, "installed", lambda package: version)
    assert (import_hook.AdaptedImports().find_spec(import_hook.NNIS_LOADER) is not None) == replaced


def test_typeguard_is_imported_where_ast_has_no_str() -> None:
    """Python 3.14 lacks `ast.Str`; here it is taken away. Without this package, the import fails."""
    without = "import ast\nfor name in ('Str', '__getattr__'): vars(ast).pop(name, None)\n"
    assert "ImportError: cannot import name 'Str'" in run(f"{without}import typeguard").stderr
    done = run(
        f"{without}import nni_proxyless, typeguard\nprint(typeguard.check_type([1], list[int]), hasattr(ast, 'Str'))"
    )
    assert (done.stdout, done.stderr) == ("[1] False\n", "")


def test_importing_everything_prints_nothing() -> None:
    """All strategies, NNI, Lightning, tianshou, gym and pkg_resources, with Python's default warnings."""
    code = (
        "import nni_proxyless, nni_proxyless.strategies.nni_strategies, nni_proxyless.strategies.random_search\n"
        "import nni.nas.strategy._rl_impl, nni_proxyless.search.run, nni_proxyless.deploy.retrain, pkg_resources\n"
        "nni_proxyless.ProxylessNAS\n"
        "from gym_notices import notices\nassert notices.notices, 'the notices of other programs are gone'"
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
