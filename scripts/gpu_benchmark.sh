#!/usr/bin/env bash
# Measures the samplers on a GPU with CUDA graphs; writes JSON and tables to outputs/benchmarks/gpu. Installs nothing.
# Needs Python 3.11 or newer with torch, numpy and safetensors, and the recorded observations beside a checkpoint.
# PYTHON names the interpreter. Arguments: scripts/gpu_benchmark.sh --help
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
python="${PYTHON:-python3}"
"$python" -c 'import torch, numpy, safetensors' 2>/dev/null || {
    echo "gpu_benchmark: $python lacks torch, numpy or safetensors: pip install torch numpy safetensors" >&2
    exit 2
}
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" benchmarks/gpu.py "$@"
