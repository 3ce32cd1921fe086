#!/usr/bin/env bash
# Build the compiled part (native/) and install it in .venv (or $VENV), where it can be: on Linux, with cargo.
# Does nothing when nothing has changed. All else works without it, so a build that fails ends in a line that says so;
# scripts/check_native.sh is where it is loud.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=$venv/bin/python
stamp=$venv/.dspy-live-native-stamp
[ "$(uname)" = Linux ] || exit 0

cargo=$(command -v cargo || true)
wanted=$({
  echo "$cargo"
  pwd
  cat native/Cargo.toml native/pyproject.toml native/dspy_live_native.pyi native/src/*.rs scripts/setup_native.sh
} | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
uv=$(scripts/uv.sh "$python")
without() { # why
  "$uv" pip uninstall --quiet --python "$python" dspy-live-native 2>/dev/null || true
  echo "setup: $1, so $venv goes without the compiled part (native/README.md); all else works" >&2
}
if [ -z "$cargo" ]; then
  without "there is no cargo here"
  echo "$wanted" >"$stamp"
  exit 0
fi

echo "setup: building the compiled part in native/ (the first time takes half a minute)" >&2
# One small crate: what an incremental build would save here is less than keeping the state for it costs.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
if "$uv" pip install --quiet --no-deps --no-build-isolation --reinstall --python "$python" ./native; then
  echo "$wanted" >"$stamp"
else
  rm -f "$stamp"
  without "native/ was not built (the reason is above)"
fi
