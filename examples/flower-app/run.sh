#!/usr/bin/env bash
# The app on a SuperLink with two SuperNodes of this machine, by `flwr run`, without the internet.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
nodes=()
end() {
    kill "${nodes[@]}" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap end EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 CODECARBON_TELEMETRY=disabled
export FLWR_HOME=$folder/flwr
database=sqlite:///$folder/telemetry.db
export FEDSERVER_TELEMETRY__DATABASE_URL=$database FEDSERVER_MODEL__OUTPUT_DIR=$folder/runs

free_port() { python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
mkdir "$FLWR_HOME"
cat >"$FLWR_HOME/config.toml" <<END
[superlink]
default = "here"

[superlink.here]
address = "127.0.0.1:$port"
insecure = true
END
flower-superlink --insecure --host 127.0.0.1 --port "$port" \
    --disable-runtime-dependency-installation >superlink.log 2>&1 &
nodes+=($!)
for partition in 0 1; do
    flower-supernode --insecure --superlink "127.0.0.1:$port" --port "$(free_port)" \
        --node-config "partition-id=$partition" >"supernode-$partition.log" 2>&1 &
    nodes+=($!)
done

for _ in $(seq 60); do # the SuperLink may not listen yet
    flwr run "$here" >submitted.log 2>&1 && break
    sleep 0.5
done
for _ in $(seq 120); do
    flwr ls --format json >runs.json
    grep -q '"status": *"finished' runs.json && break
    sleep 1
done
grep -q '"status": *"finished:completed"' runs.json || { cat runs.json ./*.log; exit 1; }
fedserver runs show latest --store "$database"
