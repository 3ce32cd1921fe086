#!/usr/bin/env bash
# Write requirements.lock from pyproject.toml: every version, with its hashes, for every platform.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
uv=$(scripts/uv.sh "${PYTHON:-python3}")
extras=(shell plot redis postgres otel)
"$uv" pip compile --quiet pyproject.toml --group dev "${extras[@]/#/--extra=}" --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock "$@"
