#!/usr/bin/env bash
# Tries the compose cluster as a new operator does: starts it, checks secrets and stores, scales it, asks its DNS, plays on
# it from inside and from this host, and ends it. Builds the images first unless NO_BUILD is set; WITHOUT=a|b leaves services out.
# Needs dig and curl.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=shardkeep-try
dns_port=${SHARDKEEP_DNS_PORT:-7053}
registry_port=${SHARDKEEP_REGISTRY_PORT:-7001}
prometheus_port=${SHARDKEEP_PROMETHEUS_PORT:-9090}
players=${PLAYERS:-20}
operator=$(mktemp -d)

compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }
services() { compose config --services | grep -vxE "demo|tool|${WITHOUT:-none}"; }
say() { printf '\n== %s\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
trap 'compose down --volumes --remove-orphans >/dev/null 2>&1; rm -rf "$operator"' EXIT

replicas_in_dns() { dig +short "@127.0.0.1" -p "$dns_port" "_shardkeep._tcp.$1.shardkeep.test" SRV | grep -c shardkeep || true; }
wait_for_dns() { # name, replicas
  local began; began=$(date +%s%N)
  until [ "$(replicas_in_dns "$1")" = "$2" ]; do
    sleep 0.1
    [ $(( ($(date +%s%N) - began) / 1000000000 )) -lt 60 ] || fail "DNS does not name $2 replicas of $1"
  done
  echo "DNS names $2 replicas of $1 after $(( ($(date +%s%N) - began) / 1000000 )) ms"
}
container() { compose ps -q "$1" | head -1; }

say "up"
volumes_before=$(docker volume ls -q | sort)
# shellcheck disable=SC2046 # one word per service
compose up -d ${NO_BUILD:+--no-build} $(services)
wait_for_dns gateway 2
wait_for_dns login 2

say "each container holds its own secrets alone"
for service in $(services | grep -vxE 'secrets|postgres|redis|prometheus|alertmanager|grafana'); do
  kind=${service#edge-}
  docker exec "$(container "$service")" ls /secrets |
    grep -vxE "ca\.pem|$kind\.(pem|key)|players\.(pem|key)|settings\.toml" && fail "$service holds a secret of another service"
done
docker exec "$(container redis)" redis-cli publish shardkeep:chat:1 forged | grep -q NOPERM || fail "Redis lets anybody publish"
compose run --rm -T --no-deps --entrypoint /bin/bash tool -c 'ls /secrets' | grep -q cli.key || fail "the tool has no certificate"
login_url=$(docker exec "$(container login)" sed -n 's/^store = "\(.*\)"/\1/p' /secrets/settings.toml)
docker exec "$(container postgres)" psql "$login_url" -c 'SELECT 1' >/dev/null || fail "login cannot use its database"
docker exec "$(container postgres)" psql "${login_url%/login}/billing" -c 'SELECT 1' >/dev/null 2>&1 && fail "login can open billing's database"
echo "secrets, PostgreSQL roles and Redis users are separate"

say "scale"
compose up -d --no-build --no-recreate --scale login=2 --scale gateway=3 login gateway
wait_for_dns gateway 4
wait_for_dns login 3
compose run --rm -T tool status

say "players inside the network"
compose run --rm -T demo demo --dns dns:7053 --players "$players" --seconds 30
sleep 6 # one scrape
attached=$(curl -fsS "127.0.0.1:$prometheus_port/api/v1/query" --data-urlencode \
  'query=sum by (instance) (shardkeep_gateway_handshakes_total{kind="attach", outcome="ok"}) > 0' |
  grep -oE '"instance":"[^"]*"},"value":\[[^]]*\]' | sed -E 's/"instance":"([^"]*)".*"([0-9]+)"\]/\1 \2/')
printf 'sessions attached, by gateway:\n%s\n' "$attached"
[ "$(wc -l <<<"$attached")" -ge 3 ] || fail "players did not spread over the gateways"

say "players on this host, through the published ports alone, as docs/operations.md describes"
compose up -d --no-build --no-recreate --scale login=0 --scale gateway=0 login gateway
wait_for_dns gateway 1
wait_for_dns login 1
compose run --rm -T --no-deps --entrypoint tar tool -C /secrets -c . | tar -x -C "$operator"
if command -v shardkeep >/dev/null; then on_host=(shardkeep); else
  on_host=(docker run --rm --network host -u "$(id -u)" -v "$operator:$operator:ro" shardkeep/tool)
fi
"${on_host[@]}" demo --dns "127.0.0.1:$dns_port" --registry "127.0.0.1:$registry_port" --tls-dir "$operator" --players 6 --seconds 20

say "orphans are reaped"
docker run -d --rm --name "$COMPOSE_PROJECT_NAME-up" --entrypoint /usr/bin/tini shardkeep/tool -- \
  sh -c '(sleep 0.2 &); exec sleep 30' >/dev/null
sleep 1
zombies=$(docker exec "$COMPOSE_PROJECT_NAME-up" sh -c "grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
docker kill "$COMPOSE_PROJECT_NAME-up" >/dev/null
[ "$zombies" = 0 ] || fail "$zombies zombies"

say "down"
compose down
anonymous=$(comm -13 <(echo "$volumes_before") <(docker volume ls -q | sort) | grep -cE '^[0-9a-f]{64}$' || true)
[ "$anonymous" = 0 ] || fail "$anonymous anonymous volumes remain"
compose down --volumes
trap - EXIT
rm -rf "$operator"
