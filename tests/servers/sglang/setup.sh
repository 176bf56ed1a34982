#!/usr/bin/env bash
# setup.sh PYTHON TORCH: SGLang 0.5.23 into the environment of PYTHON, with that version of PyTorch; 3.3 GB.
# There is no wheel of SGLang for CPUs: what is built from source wants AMX. The one for CUDA runs on any CPU once its
# kernels are stubs (stubs/sitecustomize.py) and two more things are taken away (setup_for_cpu.py).
set -eu
python=$1
torch=$2
here=$(cd "$(dirname "$0")" && pwd)
"$python" -m pip install --quiet --upgrade pip
"$python" -m pip install --quiet "torch==$torch"
"$python" -m pip install --quiet --requirement "$here/setup_requirements.txt"
"$python" -m pip install --quiet --no-deps sglang==0.5.23 torchvision==0.28.0
"$python" "$here/setup_for_cpu.py"
