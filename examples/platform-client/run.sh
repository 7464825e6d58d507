#!/usr/bin/env bash
# The platform page's client twice: to a server without authentication, and to one with tokens over TLS.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export FLWR_TELEMETRY_ENABLED=0 CODECARBON_TELEMETRY=disabled

address=127.0.0.1:${QUICKSTART_PORT:-5000}
database=sqlite:///$folder/telemetry.db

# train NAME SERVER-OPTION...: a server and two clients, which take the options in the array `with`
train() {
    local name=$1 server partition
    shift
    fedserver run -c "$here/../quickstart/server.yaml" --set "run_name=$name" --set rounds=2 \
        --set "server.address=$address" --set "telemetry.database_url=$database" \
        --set "model.output_dir=$folder/runs" --set telemetry.http.port=0 \
        --set telemetry.http.linger_s=0 "$@" &
    server=$!
    for partition in 0 1; do
        python "$here/client.py" --server "$address" --partition $partition \
            ${with[@]+"${with[@]/%token/token-$partition}"} 2>"$name-$partition.log" &
    done
    wait "$server" || { cat "$name"-*.log; exit 1; }
    wait
    fedserver runs show "$name" --store "$database"
}

echo "== without a token"
with=()
train no-token

echo "== with a token for each client, over TLS"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout server.key -out server.pem \
    -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 2>/dev/null
for client in 0 1; do
    (umask 077 && fedserver tokens create --label "hospital-$client" --store tokens.db >"token-$client" 2>/dev/null)
done
with=(--ca server.pem --token-file token)
train with-token --set server.auth=tokens --set "server.tokens_store=$folder/tokens.db" \
    --set "server.tls={certificate: $folder/server.pem, key: $folder/server.key, ca: null}"
fedserver tokens list --store tokens.db
