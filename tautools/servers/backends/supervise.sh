# How the job watches its servers, which are in `names`; notes for them lie in the folder `launches`
set -m  # each server leads a process group of its own
pids=() asked=()

runs() {
  [ -n "${pids[$1]:-}" ] && kill -0 -- "-${pids[$1]}" 2> /dev/null
}

tend() {  # once a second: end the servers for which somebody has left a note
  local i note
  sleep 1
  for i in "${!names[@]}"; do
    note="$launches/${names[$i]}.stop"
    [ -e "$note" ] || continue
    if ! runs "$i"; then rm -f -- "$note"; continue; fi
    asked[$i]=$((${asked[$i]:-0} + 1))
    if [ "${asked[$i]}" -gt 20 ]; then kill -KILL -- "-${pids[$i]}"
    elif [ $((${asked[$i]} % 3)) -eq 1 ]; then kill -TERM -- "-${pids[$i]}"
    fi
  done
}

loaded() {  # whether the next server may start: this one has its weights, or has ended
  grep -qsE 'Loading weights took|Model loading took|Application startup complete|^Base URL: +http' "$1" "$2" ||
    [ -e "$launches/../${names[$3]}.json" ] || ! runs "$3"
}

wait_for_all() {  # return when none runs any more, with the exit status of the last that failed
  local i left code=0
  while :; do
    left=0
    for i in "${!pids[@]}"; do if runs "$i"; then left=1; fi; done
    [ "$left" = 1 ] || break
    tend
  done
  for i in "${!pids[@]}"; do wait "${pids[$i]}" || code=$?; done
  return "$code"
}
