#!/usr/bin/env bash
# Everything that needs a GPU, in eight minutes on an H200: see README.md beside this file.
#
#   benchmarks/gpu/check.sh                     all parts; CSV files in benchmarks/gpu/results
#   benchmarks/gpu/check.sh --toy               a dry run of every part on the CPU at a toy size; DEVICE=cpu is the same
#   benchmarks/gpu/check.sh --parts memory      only these parts
#   benchmarks/gpu/check.sh --output FOLDER     CSV files in another folder
#
#   PYTHON=python3          use this Python instead of the environment of `make`
#   PACKAGES=FOLDER         add the packages that `python -m benchmarks.gpu.packages` has collected
#   NNI_PROXYLESS_DATA=...  folder with cifar10/train.tar.xz; default shared/data in or beside the checkout
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${PYTHON:-}" ]; then
  make --silent .venv/.ready
  PYTHON=.venv/bin/python
fi
# The checkout comes first, so that the code that is checked is the checkout's.
export PYTHONPATH="$PWD${PACKAGES:+:$(realpath "$PACKAGES")}${PYTHONPATH:+:$PYTHONPATH}"

case " $* " in *" --toy "*) export DEVICE=${DEVICE:-cpu} ;; esac
if [ "${DEVICE:-}" = cpu ]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; fi

"$PYTHON" -W ignore - <<'CHECK'
import importlib, importlib.metadata, os, sys

try:
    import torch
except ImportError as reason:
    sys.exit(f"{sys.executable} lacks torch: {reason}")
if os.environ.get("DEVICE") != "cpu" and not torch.cuda.is_available():
    sys.exit("PyTorch sees no CUDA device here; benchmarks/gpu/check.sh --toy is a dry run on the CPU")
missing = []
for name in ("torchvision", "pytorch_lightning", "nni", "pydantic", "sklearn", "PIL",
             "scipy", "pandas", "yaml", "tensorboard"):
    try:
        importlib.import_module(name)
    except ImportError as reason:
        missing.append(f"{name} ({reason})")
if missing:
    sys.exit(f"{sys.executable} lacks {', '.join(missing)}; see benchmarks/gpu/packages.py")
try:
    importlib.metadata.version("nni-proxyless")
except importlib.metadata.PackageNotFoundError:
    sys.exit("nni-proxyless is not installed, not even its description; see benchmarks/gpu/packages.py")
CHECK

exec "$PYTHON" -W ignore -m benchmarks.gpu.check "$@"
