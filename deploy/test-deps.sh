#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, when they are missing. Debian and Ubuntu.
set -euo pipefail

missing=()
have_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
have_postgres || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || missing+=(pgbouncer)
command -v promtool >/dev/null || missing+=(prometheus)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing for the tests: ${missing[*]}"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  # Servers are started by the tests on free ports; the distribution's own must not start beside them.
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null
  $sudo apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >/dev/null
fi

# Packages of the independent Python client and of the Python example backend.
venv=target/venv
requirements=(tests/interop/requirements.txt examples/python-dice/requirements.txt)
if [ ! -x "$venv/bin/python" ] || ! cat "${requirements[@]}" | cmp -s - "$venv/requirements.txt"; then
  echo "installing the Python packages of tests/interop and examples/python-dice"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
  cat "${requirements[@]}" >"$venv/requirements.txt"
fi
