#!/usr/bin/env bash
# Write requirements.lock from pyproject.toml: every version, with its hashes, for every platform.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
uv=$(command -v uv || echo .cache/uv-venv/bin/uv)
if ! "$uv" --version >/dev/null 2>&1; then
  echo "lock: no uv; 'pip install uv' first" >&2
  exit 1
fi
extras=(shell plot redis postgres otel)
"$uv" pip compile --quiet pyproject.toml --group dev "${extras[@]/#/--extra=}" --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock "$@"
