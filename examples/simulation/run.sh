#!/usr/bin/env bash
# A federation of four clients simulated on this machine, and its footprint.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! python -c "import ray" 2>/dev/null; then
    echo "left out: needs ray (pip install 'fedserver-telemetry[simulation]')"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 CODECARBON_TELEMETRY=disabled

database=sqlite:///$folder/telemetry.db
python "$here/simulate.py" --store "$database" >simulation.log 2>&1 || { cat simulation.log; exit 1; }
fedserver runs show latest --store "$database"
fedserver runs export latest --store "$database" --format clients-csv | cut -d, -f3,6,17,19
