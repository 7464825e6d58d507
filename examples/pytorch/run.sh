#!/usr/bin/env bash
# Two PyTorch clients on the CPU, the ready server, and what they left.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! python -c "import torch" 2>/dev/null; then
    echo "left out: needs PyTorch (a CPU build is enough)"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 CODECARBON_TELEMETRY=disabled

address=127.0.0.1:${QUICKSTART_PORT:-5000}
database=sqlite:///$folder/telemetry.db
fedserver run -c "$here/../quickstart/server.yaml" --set run_name=pytorch \
    --set "server.address=$address" --set "telemetry.database_url=$database" \
    --set "model.output_dir=$folder/runs" --set telemetry.http.port=0 \
    --set telemetry.http.linger_s=0 &
server=$!
for partition in 0 1; do
    python "$here/client.py" --server "$address" --partition $partition 2>"client-$partition.log" &
done
wait "$server" || { cat client-*.log; exit 1; }
wait
fedserver runs show latest --store "$database"
