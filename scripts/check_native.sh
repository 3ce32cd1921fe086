#!/usr/bin/env bash
# Format, clippy and tests of the compiled part, and whether its types are those of the module in .venv (or $VENV).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null 2>&1; then
  echo "native: cargo is needed for the compiled part's checks" >&2
  exit 1
fi
venv=$(cd "${VENV:-.venv}" && pwd)
export PYO3_PYTHON=$venv/bin/python CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

cd native
cargo fmt --all --check
# In the profile of the module itself, so that the macros of pyo3 are compiled once for both.
cargo clippy --quiet --release --all-targets --all-features -- -D warnings
cargo test --quiet
[ "$(uname)" = Linux ] || exit 0 # elsewhere there is no module

cd .. # away from the stub's source: the installed one is compared
if ! "$venv/bin/python" -c 'import dspy_live_native'; then
  echo "native: $venv has no compiled part; what make setup said of it is above" >&2
  exit 1
fi
# maturin wraps the library into a package, whose inner module needs no types of its own.
"$venv/bin/python" -m mypy.stubtest dspy_live_native --concise --allowlist <(echo dspy_live_native.dspy_live_native)
