"""Collects the Python packages that another machine lacks, for a machine with a GPU but without a network.

    python -m benchmarks.gpu.packages FOLDER --present FILE [--python 3.12]

FILE is the output of `pip list --format freeze` on the other machine. Without versions, any version counts as present.
Run this in the environment of `make`. Packages of pure Python are copied from it. Others are fetched by pip for the
other machine's Python. NNI's web UI and Node.js are left out: the check needs only NNI's Python modules. The other
machine then runs `PACKAGES=FOLDER PYTHON=python3 benchmarks/gpu/check.sh`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

OWN = "nni-proxyless"
THEIRS = ("torch", "torchvision")  # the other machine's own, for its CUDA
LEFT_OUT = ("nni_node/", "nni_assets/", "../", "__pycache__/")  # of NNI, and programs
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--present", type=Path, required=True)
    parser.add_argument("--python", default="3.12")
    options = parser.parse_args()
    present = read_present(options.present)
    options.folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    for name in missing(present, options.python):
        found = distribution(name)
        if name == "nni" or is_pure(found):
            copy(found, options.folder)
        else:
            fetched.append(f"{name}=={found.version}")
    if fetched:
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:",
                "--python-version", options.python, *platforms, "--target", str(options.folder), *fetched,
            ],
            check=True,
        )  # fmt: skip
    copy_description(distribution(OWN), options.folder)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    sys.stdout.write(f"{options.folder}: {size / 2**20:.0f} MiB; fetched {', '.join(fetched) or 'nothing'}\n")


def read_present(path: Path) -> dict[str, str]:
    """Packages of the other machine and their versions, which are empty where the file does not say."""
    pairs = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {normalised(re.split("[ @]", name)[0]): version.strip() for name, _, version in pairs}


def missing(present: Mapping[str, str], python: str) -> list[str]:
    """Names of all packages that the project needs, directly or not, and that are not present in a fitting version."""
    found: list[str] = []
    open_names = [OWN]
    environment = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    while open_names:
        for line in distribution(open_names.pop()).requires or []:
            requirement = Requirement(line)
            name = normalised(requirement.name)
            fits = not present.get(name) or requirement.specifier.contains(present[name], prereleases=True)
            if name in found or name in THEIRS or (name in present and fits):
                continue
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            try:
                distribution(name)
            except PackageNotFoundError:
                continue  # of another Python than this one's; `check.sh` says if it is missing
            found.append(name)
            open_names.append(name)
    return sorted(found)


def normalised(name: str) -> str:
    """Name of a package in the spelling of PyPI."""
    return re.sub(r"[-_.]+", "-", name).strip().lower()


def is_pure(found: Distribution) -> bool:
    """Whether a package has no compiled part."""
    return not any(str(path).endswith((".so", ".pyd")) for path in found.files or [])


def copy(found: Distribution, folder: Path) -> None:
    """Copy the modules of an installed package."""
    for path in found.files or []:
        name = str(path)
        source = Path(str(found.locate_file(path)))
        if name.startswith(LEFT_OUT) or "__pycache__" in name or not source.is_file():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def copy_description(found: Distribution, folder: Path) -> None:
    """Copy the description (dist-info) of an installed package, without its modules."""
    for path in found.files or []:
        if ".dist-info/" in str(path) and Path(str(found.locate_file(path))).name in ("METADATA", "entry_points.txt"):
            target = folder / str(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(found.locate_file(path)), target)


if __name__ == "__main__":
    main()
