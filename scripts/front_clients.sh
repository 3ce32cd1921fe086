#!/usr/bin/env bash
# Make the environments of the real clients that the front ends are tested with, in .cache/front-clients: OpenAI's, MCP's of
# two generations, AG-UI's, and Node with npm's packages. Each is made anew when its lock file has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
root=$PWD
locks=$root/tests/front_ends/clients
home=$root/.cache/front-clients
python=$(realpath "${VENV:-.venv}/bin/python")
mkdir -p "$home"

# Test workers that start together take turns.
exec 9>"$home/lock"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

wanted() { cat "$@" scripts/front_clients.sh | cksum; }

make_python() { # name
  local env=$home/$1 lock=$locks/$1.lock
  if [ "$(cat "$env/stamp" 2>/dev/null)" = "$(wanted "$lock")" ]; then
    return
  fi
  echo "front_clients: making $1" >&2
  rm -rf "$env"
  "$uv" venv --quiet --python "$python" "$env"
  "$uv" pip sync --quiet --require-hashes --python "$env/bin/python" "$lock"
  wanted "$lock" >"$env/stamp"
}

make_npm() {
  local env=$home/npm
  if [ "$(cat "$env/stamp" 2>/dev/null)" = "$(wanted "$locks"/package*.json "$locks/node.lock")" ]; then
    return
  fi
  echo "front_clients: making npm" >&2
  rm -rf "$env"
  mkdir -p "$env"
  cp "$locks"/package*.json "$env"
  (cd "$env" && PATH=$home/node/bin:$PATH npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  wanted "$locks"/package*.json "$locks/node.lock" >"$env/stamp"
}

uv=$(scripts/uv.sh "$python")
for name in openai mcp mcp_2025 agui node; do
  make_python "$name"
done
make_npm
