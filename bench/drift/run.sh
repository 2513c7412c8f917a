#!/bin/sh
# Measures the drift engine beside its peers; what each part shows is in README.md here.
#   bench/drift/run.sh setup WORK     the peers' environments, as pinned in requirements/
#   bench/drift/run.sh cost WORK      in turn with the peers and with a process that only reads
#   bench/drift/run.sh large WORK     10M rows, thousands of columns, millions of strings
#   bench/drift/run.sh errors WORK    false alarms and power, beside the peers
# From the environment: RETRAIN (the command), PYTHON (of the environment that has it), ROWS, RUNS,
# PEERS, DRAWS, PEER_DRAWS, SHARED (the folder shared/bench/drift).
set -eu
part=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
shared=${SHARED:-$here/../../../shared/bench/drift} peers_script=bench_drift_peers.py
retrain=${RETRAIN:-retrain} python=${PYTHON:-python3}
export NML_DISABLE_USAGE_LOGGING=1 DO_NOT_TRACK=1
mkdir -p "$work/results" "$work/venvs"

setup() {
    for file in "$here"/requirements/*.txt; do
        venv="$work/venvs/$(basename "$file" .txt)"
        [ -e "$venv/.ready.json" ] && continue
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install -q -r "$file"
        echo '{"ok": true}' > "$venv/.ready.json" # the shared script then takes it as it is
    done
}

# The shared script treats every exit code but 0 as a failure; `retrain drift` exits 3 on drift.
quietly() { echo "sh -c '$retrain drift $1 {current} --json; [ \$? -le 3 ]'"; }

cost() {
    for rows in ${ROWS:-100000 1000000}; do
        data="$work/data/$rows"
        if [ ! -e "$data/truth.json" ]; then
            "$python" "$shared/$peers_script" --make-data "$data" "$rows"
        fi
        $retrain profile "$data/reference.parquet" -o "$work/reference_$rows.profile"
        set -- --command "retrain=$(quietly '{reference}')" \
            --command "retrain-profile=$(quietly "$work/reference_$rows.profile")" \
            --command "retrain-numpy=env RETRAIN_DRIFT_KERNELS=numpy $(quietly '{reference}')"
        for mode in columns batches table-1 table; do
            set -- "$@" --command "read-$mode=$python $here/read_both.py $mode {reference} {current}"
        done
        "$python" "$shared/$peers_script" --work "$work" --rows "$rows" --runs "${RUNS:-3}" \
            --timeout 3600 --peers "${PEERS-hand,frouros,nannyml}" "$@" \
            --json "$work/results/cost_$rows.json"
    done
}

large() {
    for kind in rows wide strings; do
        "$python" "$here/large.py" $kind --work "$work" --retrain "$retrain" \
            --shared "$shared/$peers_script"
    done
}

false_alarms() { # python tool draws
    "$1" "$here/calibration/false_alarms.py" "$2" --draws "$3" --json "$work/results/alarms_$2.json"
}

power() { # python tool rows pairs
    "$1" "$here/calibration/power.py" "$2" --work "$work" --rows "$3" --pairs "$4" \
        --shared "$shared/$peers_script" --json "$work/results/power_$2_$3.json"
}

errors() {
    venvs="$work/venvs"
    false_alarms "$python" retrain "${DRAWS:-100}"
    false_alarms "$venvs/nannyml/bin/python" nannyml "${DRAWS:-100}"
    false_alarms "$venvs/evidently/bin/python" evidently "${PEER_DRAWS:-10}"
    # rows, pairs for the quick, for nannyml, for evidently
    for sizes in "100 20 20 10" "1000 20 20 10" "10000 10 10 4" "100000 4 2 2"; do
        set -- $sizes
        power "$python" make "$1" "$2"
        for tool in retrain retrain-spec; do power "$python" $tool "$1" "$2"; done
        power "$venvs/hand/bin/python" scipy "$1" "$2"
        for tool in nannyml nannyml-any; do power "$venvs/nannyml/bin/python" $tool "$1" "$3"; done
        power "$venvs/evidently/bin/python" evidently "$1" "$4"
    done
    "$python" "$here/calibration/tables.py" "$work/results"
}

"$part"
