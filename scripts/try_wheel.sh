#!/usr/bin/env bash
# Build the wheel and the sdist, on Linux those of the compiled part too, check them, and try them in a clean
# environment of each Python that is named, with and without the compiled part:
# scripts/try_wheel.sh python3.11 python3.13 (python3 by default). Needs the environment that `make setup` makes.
set -euo pipefail
set -E
trap 'echo "try_wheel: line $LINENO failed" >&2' ERR
cd "$(dirname "$0")/.."

# A Python that is not here is an error, and nothing to download.
export UV_PYTHON_DOWNLOADS=never
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
venv=$(cd "${VENV:-.venv}" && pwd)
uv=$(realpath "$(scripts/uv.sh "$venv/bin/python")")
dist=${DIST:-dist}
mkdir -p "$dist"
dist=$(cd "$dist" && pwd)
work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

rm -f "$dist"/dspy_live*
"$venv/bin/python" -m hatchling build -d "$dist" >/dev/null
[ "$(uname)" != Linux ] || DIST=$dist scripts/native_wheel.sh
"$venv/bin/twine" check --strict "$dist"/dspy_live*
wheel=$(ls "$dist"/dspy_live-*.whl)
sdist=$(ls "$dist"/dspy_live-*.tar.gz)

# No key, setting or package of this shell reaches what is tried.
unset PYTHONPATH DSPY_LIVE_NATIVE OPENAI_API_KEY OPENAI_API_BASE OPENAI_BASE_URL DSPY_LIVE_LM DSPY_LIVE_API_BASE DSPY_LIVE_API_KEY
export DSPY_CACHEDIR=$work/cache DSPY_LIVE_HOME=$work/live NO_PROXY=127.0.0.1,localhost

try() { # python, package, and whether the README is run too
  local python=$1 package=$2 readme=$3 env=$work/env
  rm -rf "$env"
  "$uv" venv --quiet --python "$python" "$env"
  "$uv" pip install --quiet --python "$env/bin/python" "$package"
  "$uv" pip check --quiet --python "$env/bin/python"
  (
    cd "$work"
    "$env/bin/python" -W error::SyntaxWarning -c "
import dspy_live
for name in dspy_live.__all__:
    getattr(dspy_live, name)
assert '$work' in dspy_live.__file__, dspy_live.__file__"
    "$env/bin/dspy-live" --help | grep serve >/dev/null
    [ -n "$("$env/bin/dspy-live" run 'question -> answer' 'Why?' --sim 2>/dev/null)" ]
    "$env/bin/dspy-live" explain streaming | grep streamify >/dev/null
  )
  serve_and_ask "$env"
  if [ "$readme" = yes ]; then
    "$uv" pip install --quiet --python "$env/bin/python" fastapi
    "$env/bin/python" scripts/try_readme.py README.md
  fi
  [ "$(uname)" != Linux ] || with_and_without_native "$env" "$package"
  echo "tried $(basename "$package") with $("$env/bin/python" -V)"
}

with_and_without_native() { # environment, package; a wheel takes the wheel of the compiled part, an sdist the sdist
  local kind=--only-binary
  [[ $2 == *.whl ]] || kind=--no-binary
  "$1/bin/python" scripts/try_streams.py without
  "$uv" pip install --quiet --python "$1/bin/python" --find-links "$dist" "$kind" dspy-live-native "$2[native]"
  "$1/bin/python" scripts/try_streams.py with
  "$1/bin/dspy-live" doctor --no-network | grep '^ok *native .*CPU' >/dev/null
}

serve_and_ask() { # environment
  local log=$work/serve.log port url
  port=$("$1/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  url=http://127.0.0.1:$port
  (cd "$work" && exec "$1/bin/dspy-live" serve "question -> answer" --sim --port "$port" >"$log" 2>&1) &
  server=$!
  for _ in $(seq 300); do
    curl -fs "$url/health/live" >/dev/null 2>&1 && break
    kill -0 $server 2>/dev/null || break
    sleep 0.1
  done
  if ! curl -fs "$url/predict" -d '{"question": "Why?"}' | grep '"answer"' >/dev/null; then
    echo "try_wheel: the server did not answer" >&2
    cat "$log" >&2
    exit 1
  fi
  curl -fsN "$url/predict/stream" -d '{"question": "Why?"}' | grep '^event:' >/dev/null
  kill -TERM $server
  wait $server || { echo "try_wheel: the server ended with $?" >&2; exit 1; }
  server=
}

[ $# -gt 0 ] || set -- python3
readme=yes
for python in "$@"; do
  try "$python" "$wheel" $readme
  readme=no
done
try "$1" "$sdist" no
