#!/usr/bin/env bash
# Install the programs that the tests drive: a browser, Node, a Redis or Valkey server, a PostgreSQL server, nginx, HAProxy, ip,
# and the shells zsh and fish.
# Does nothing when they are there.
set -euo pipefail

missing=()
have() { command -v "$1" >/dev/null 2>&1; }
have_in_sbin() { have "$1" || [ -x "/usr/sbin/$1" ]; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

have chromium || have chromium-browser || have google-chrome || missing+=(chromium)
have node || missing+=(nodejs)
have redis-server || have valkey-server || missing+=(redis)
have_postgres || missing+=(postgresql)
have_in_sbin nginx || missing+=(nginx)
have_in_sbin haproxy || missing+=(haproxy)
# Tests over several hosts make network namespaces.
[ "$(uname)" != Linux ] || have_in_sbin ip || missing+=(iproute2)
have zsh || missing+=(zsh)
have fish || missing+=(fish)
[ "$(uname)" != Linux ] || have systemd-analyze || missing+=(systemd)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

if [ "$(uname)" = Darwin ]; then
  echo "install_system: missing ${missing[*]}; run: brew install ${missing[*]}" >&2
  exit 1
fi
if ! have apt-get; then
  echo "install_system: missing ${missing[*]}; install them with your system's package manager" >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! have sudo; then
    echo "install_system: missing ${missing[*]}, and neither root nor sudo to install them with" >&2
    exit 1
  fi
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_system: failed: $*" >&2
    exit 1
  fi
}

echo "install_system: installing ${missing[*]}" >&2
# A machine that has just started may be installing something else.
patient=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${patient[@]}" update -q
packages=()
for name in "${missing[@]}"; do
  case $name in
    # Debian 13 and later have Valkey in Redis's place.
    redis) apt-cache show redis-server >/dev/null 2>&1 && packages+=(redis-server) || packages+=(valkey-server) ;;
    nginx) packages+=(nginx-light) ;;
    *) packages+=("$name") ;;
  esac
done
# The tests start servers of their own, on ports of their own; the packages must not start theirs.
policy=/usr/sbin/policy-rc.d
placed=
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod +x $policy
  placed=yes
fi
status=0
(quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${patient[@]}" install -q -y --no-install-recommends "${packages[@]}") || status=$?
[ -z "$placed" ] || "${as_root[@]}" rm -f $policy
exit $status
