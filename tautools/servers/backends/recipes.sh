# Compiled graphs of this very software: in a folder of their own below `recipe_root`, on the node's own disk, and
# copied from `recipe_store` and to it where the site has one
software=$(python3 - <<'PYTHON'
import importlib.metadata as installed, re
found = []
for name in ("habana_torch_plugin", "vllm", "vllm_gaudi"):
    try:
        found.append(re.sub(r"[^A-Za-z0-9._+-]", "_", installed.version(name)))
    except installed.PackageNotFoundError:
        if name == "vllm":
            raise SystemExit
print("-".join(found))
PYTHON
)
if [ -n "$software" ]; then
  recipes="$recipe_root/$software-$recipe_kind"
  mkdir -p -- "$recipes"
  if [ -n "$recipe_store" ]; then cp -r -n -- "$recipe_store/${recipes##*/}"/. "$recipes"/ 2> /dev/null; fi
fi

keep_recipes() {
  [ -n "$software" ] && [ -n "$recipe_store" ] || return
  mkdir -p -- "$recipe_store/${recipes##*/}" && cp -r -n -- "$recipes"/. "$recipe_store/${recipes##*/}"/
}
