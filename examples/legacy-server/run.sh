#!/usr/bin/env bash
# An old server of one's own with two lines added, the quickstart's two clients, and what is on record.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 CODECARBON_TELEMETRY=disabled

address=127.0.0.1:${QUICKSTART_PORT:-5000}
python "$here/server.py" "$address" 2>server.log &
server=$!
for partition in 0 1; do
    python "$here/../quickstart/client.py" --server "$address" --partition $partition 2>"client-$partition.log" &
done
wait "$server" || { cat server.log; exit 1; }
wait
fedserver runs show latest --store "sqlite:///$folder/telemetry.db"
