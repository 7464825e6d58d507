#!/usr/bin/env bash
# The quickstart in one go: server, two clients, and what they left.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 CODECARBON_TELEMETRY=disabled

address=127.0.0.1:${QUICKSTART_PORT:-5000}
database=sqlite:///$folder/telemetry.db
fedserver run -c "$here/server.yaml" --set "server.address=$address" \
    --set "telemetry.database_url=$database" --set "model.output_dir=$folder/runs" \
    --set telemetry.http.port=0 --set telemetry.http.linger_s=0 &
server=$!
python "$here/client.py" --server "$address" --partition 0 2>client-0.log &
python "$here/client.py" --server "$address" --partition 1 2>client-1.log &
wait "$server"
wait
fedserver runs show latest --store "$database"
fedserver runs export latest --store "$database" | cut -d, -f2,3,5,10,23
