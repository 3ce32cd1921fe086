#!/usr/bin/env bash
# Make .venv (or $VENV, by the interpreter $PYTHON) exactly as requirements.lock says. Does nothing when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
stamp=$venv/.dspy-live-stamp

# The machine's own certificates, as pip and curl take them: a proxy's authority is known there (the older name too).
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  echo "setup: Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2
  exit 1
}

python=$(find_python)
wanted=$({
  "$python" -c 'import sys; print(sys.version, sys.executable)'
  pwd
  cat requirements.lock pyproject.toml scripts/setup.sh scripts/uv.sh scripts/uv.lock
} | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
  exec scripts/setup_native.sh
fi

echo "setup: making $venv (the first time takes a minute or two)" >&2
uv=$(scripts/uv.sh "$python")
if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  rm -rf "$venv"
  "$uv" venv --quiet --python "$python" "$venv"
fi
rm -f "$venv/.dspy-live-native-stamp" # the lock has no compiled part, so that it is removed
"$uv" pip sync --quiet --require-hashes --python "$venv/bin/python" requirements.lock
# No build isolation: what builds the package is pinned by the lock file too.
"$uv" pip install --quiet --no-deps --no-build-isolation --python "$venv/bin/python" --editable .
"$uv" pip check --quiet --python "$venv/bin/python"
echo "$wanted" >"$stamp"
exec scripts/setup_native.sh
