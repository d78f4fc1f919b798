"""NNI's registry in a temporary folder, `doctor` in good and broken environments, and checks of versions."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from nni.tools.package_utils import get_all_algo_meta
from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

from nni_proxyless.errors import InputError, MissingDependencyError
from nni_proxyless.nni_bridge import doctor, registration
from nni_proxyless.nni_bridge.manager import check_port
from nni_proxyless.nni_bridge.tuner import LatencyBudget
from nni_proxyless.search import prepared
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.strategies import compatibility
from nni_proxyless.strategies.nni_strategies import LatencyENAS
from tests.warm import run_warm


def registry() -> list[str]:
    return [meta.name for meta in get_all_algo_meta() if not meta.is_builtin]


def test_registering_is_idempotent_and_can_be_undone() -> None:
    assert registration.registered_class() is None
    assert registration.register() == "registered"
    content = Path(os.environ["NNI_CONFIG_DIR"], "registered_algorithms.yml").read_text()
    assert registration.register() == "already registered"
    assert Path(os.environ["NNI_CONFIG_DIR"], "registered_algorithms.yml").read_text() == content
    (entry,) = yaml.safe_load(content)["tuners"]
    assert entry["builtinName"] == "LatencyBudget"
    assert entry["source"] == "user"
    assert registration.unregister() == "unregistered"
    assert registration.unregister() == "was not registered"
    assert registry() == []


def test_what_others_have_registered_stays() -> None:
    from nni.tools.package_utils import AlgoMeta, register_algo_meta

    other = {"builtinName": "Other", "className": "some.where.Other", "algoType": "tuner"}
    register_algo_meta(AlgoMeta.load(other))
    registration.register()
    assert sorted(registry()) == ["LatencyBudget", "Other"]
    registration.unregister()
    assert registry() == ["Other"]


def test_nni_makes_the_tuner_from_a_configs_name() -> None:
    registration.register()
    tuner = create_builtin_class_instance("LatencyBudget", {"tolerance": 0.2}, "tuners")
    assert isinstance(tuner, LatencyBudget)


def test_an_old_entry_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(registration, "CLASS", "an.older.LatencyBudget")
        registration.register()
    finding = next(f for f in doctor.examine() if f.what == "tuner LatencyBudget")
    assert finding.level == "error"
    assert "an.older.LatencyBudget" in finding.found
    assert registration.register() == "registered"
    assert registration.registered_class() == registration.CLASS


def test_commands(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return run_warm(["nni-proxyless", *words], tmp_path)

    assert run("register").stdout == "tuner LatencyBudget: registered\n"
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.split()[0] in {"ok", "warning", "error"} for line in lines)
    assert any(line.startswith("ok       tuner LatencyBudget: in NNI's registry") for line in lines)
    assert run("register", "--unregister").stdout == "tuner LatencyBudget: unregistered\n"
    done = run("doctor")
    assert done.returncode == 0
    assert "not in NNI's registry; plain nnictl needs it there -> nni-proxyless register" in done.stdout
    done = run("doctor", "--port", "0")
    assert done.returncode == 2
    assert done.stderr == (
        "nni-proxyless doctor: error: --port must be a whole number from 1 to 65535, got 0 (see nni-proxyless doctor "
        "--help)\n"
    )


def found(what: str, **arguments: Any) -> doctor.Finding:
    return next(finding for finding in doctor.examine(**arguments) if finding.what == what)


def test_a_good_environment_has_no_errors() -> None:
    registration.register()
    findings = doctor.examine()
    assert not [str(f) for f in findings if f.level == "error"]
    assert {"nni", "torch", "pytorch-lightning", "pkg_resources", "backend torch", "strategy enas"} <= {
        f.what for f in findings
    }
    assert all(f.fix for f in findings if f.level == "warning")


def test_modules_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_one.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "broken_two.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = doctor.load_problems(("json", "broken_one", "csv", "broken_two", "broken_three"))
    assert set(found) == {"broken_one", "broken_two", "broken_three"}
    assert "no_such_module_at_all" in found["broken_one"]
    assert "exit code -9" in found["broken_two"]
    assert "broken_three" in found["broken_three"]
    assert doctor.load_problems(("json", "csv")) == {}


def test_a_system_without_localhost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare Debian has no /etc/hosts."""
    assert not [one for one in doctor.examine() if one.what == "localhost"]
    check_port(None)

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "/etc/hosts" in found("localhost").fix
    with pytest.raises(
        InputError, match=r"the name localhost, .* cannot be resolved; add the line '127.0.0.1 localhost'"
    ):
        check_port(None)


def test_a_system_without_kill_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian without procps has no such program. It is a builtin of the shell, but NNI starts a program."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install procps" in found("nnictl stop").fix


@pytest.mark.parametrize(
    ("versions", "what", "level", "says", "fix"),
    [
        ({"pytorch-lightning": "1.9.5"}, "pytorch-lightning", "error", "1.9.5 does not work", ">=2.0.9,<3"),
        ({"pytorch-lightning": None}, "pytorch-lightning", "error", "is not installed", ">=2.0.9,<3"),
        ({"nni": "2.10"}, "nni", "error", "2.10", "nni>=3.0,<3.1"),
        ({"nni": None}, "nni", "error", "not installed", "pip install"),
        ({"tianshou": "0.4.11"}, "strategy enas", "error", "tianshou 0.4.11", "[enas]"),
        ({"gym": None}, "strategy enas", "warning", "not installed", "[enas]"),
        ({"onnxruntime": None}, "backend onnxruntime", "warning", "not installed", "[onnx]"),
        ({"protobuf": "3.19.6"}, "protobuf", "error", "too old for onnx", "--upgrade"),
    ],
)
def test_a_broken_environment_is_named_with_its_fix(
    versions: dict[str, str | None], what: str, level: str, says: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compatibility.installed

    def installed(package: str) -> str | None:
        return versions[package] if package in versions else real(package)

    monkeypatch.setattr(compatibility, "installed", installed)
    monkeypatch.setattr(doctor, "installed", installed)
    finding = found(what)
    assert finding.level == level
    assert says in str(finding)
    assert fix in str(finding)


def test_without_pkg_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert str(found("pkg_resources")).endswith("-> pip install 'setuptools<81'")


def test_a_busy_port_and_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert found(f"port {port}", port=port).level == "warning"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(tmp_path / "file"))
    finding = found("tables and warm-ups")
    assert finding.level == "error"
    assert "set NNI_PROXYLESS_CACHE" in finding.fix
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_a_check_that_fails_itself_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def _some_check() -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "_CHECKS", (_some_check,))
    assert str(doctor.examine()[0]) == "error    some check: RuntimeError: broken"


@pytest.mark.parametrize("version", ["2.0.0", "2.0.9.post0", "2.1.0", "2.6.6"])
def test_lightning_that_works(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "installed", lambda package: version)
    compatibility.check_lightning()


@pytest.mark.parametrize("version", ["1.9.5", "3.0.0", "3.1.0"])
def test_lightning_that_does_not_is_refused_with_the_reason(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "installed", lambda package: version)
    with pytest.raises(MissingDependencyError) as caught:
        compatibility.check_lightning()
    assert f"pytorch-lightning {version} does not work" in str(caught.value)
    assert "pip install 'pytorch-lightning>=2.0.9,<3'" in str(caught.value)


@pytest.mark.parametrize("lacks", [["tianshou"], ["gym"], ["tianshou", "gym"]])
def test_enas_without_its_packages_is_refused_before_anything_slow(
    lacks: list[str], recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compatibility.installed
    monkeypatch.setattr(compatibility, "installed", lambda name: None if name in lacks else real(name))
    monkeypatch.setattr(prepared, "load_recipe_data", lambda recipe: pytest.fail("the data were loaded first"))
    says = f"{' and '.join(lacks)} is missing: pip install 'nni-proxyless\\[enas\\]'"
    with pytest.raises(MissingDependencyError, match=says):
        prepared.prepare(Recipe.load(recipe_file, {"strategy": "enas"}))
    with pytest.raises(MissingDependencyError, match=says):
        LatencyENAS(latency=None, budget_ms=None)


def test_importing_a_strategy_refuses_another_lightning(tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m; real = m.version\n"
        "m.version = lambda name: '1.9.5' if name == 'pytorch-lightning' else real(name)\n"
        "import nni_proxyless\nnni_proxyless.ProxylessNAS"
    )
    done = run_warm(["python", "-W", "ignore", "-c", code], tmp_path)
    assert done.returncode == 1
    assert "pytorch-lightning 1.9.5 does not work with NNI 3.0" in done.stderr.strip().splitlines()[-1]
