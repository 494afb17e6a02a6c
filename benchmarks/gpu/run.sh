#!/usr/bin/env bash
# Everything that needs a CUDA device: kernel against reference, synchronisations, overhead.
#
#     bash benchmarks/gpu/run.sh [folder for the figures]
#
# PYTHON: the interpreter to use (default python3), with torch for CUDA, triton, pytest and hypothesis.
set -euo pipefail
cd "$(dirname "$0")/../.."
out="${1:-benchmarks/gpu}"
python="${PYTHON:-python3}"
export PYTHONPATH="$PWD/integrations:$PWD${PYTHONPATH:+:$PYTHONPATH}"

"$python" -c 'import sys, torch; torch.cuda.is_available() or sys.exit("no CUDA device: nothing was checked"); print(torch.__version__, torch.cuda.get_device_name())'
"$python" -m pytest -q -m gpu -p no:cacheprovider tests/gpu
"$python" -m benchmarks.gpu.overhead --json "$out/last.json" | tee "$out/last.md"
