#!/bin/sh
# Times `retrain drift` in turn with other drift libraries on the same files; see README.md here.
#   bench/drift/run.sh WORK_DIR [PEERS]        RETRAIN='retrain' and ROWS='100000 1000000' by default
# The peers' script treats every exit code but 0 as a failure, and `retrain drift` exits 3 on drift.
set -eu
work=$1 peers=${2:-hand,frouros}
retrain=${RETRAIN:-retrain}
here=$(cd "$(dirname "$0")" && pwd)
script=${PEERS_SCRIPT:-$here/../../../shared/bench/drift/bench_drift_peers.py}
profile="$work/reference.profile"
for rows in ${ROWS:-100000 1000000}; do
    python3 "$script" --work "$work" --rows "$rows" --runs "${RUNS:-3}" --peers "$peers" \
        --command "retrain=sh -c '$retrain drift {reference} {current} --json; [ \$? -le 3 ]'" \
        --command "retrain-numpy=env RETRAIN_DRIFT_KERNELS=numpy sh -c '$retrain drift {reference} {current} --json; [ \$? -le 3 ]'" \
        --json "$work/drift_$rows.json"
    $retrain profile "$work/data/$rows/reference.parquet" -o "$profile"
    python3 "$script" --work "$work" --rows "$rows" --runs "${RUNS:-3}" --peers "" \
        --command "retrain-profile=sh -c '$retrain drift $profile {current} --json; [ \$? -le 3 ]'" \
        --json "$work/drift_profile_$rows.json"
done
