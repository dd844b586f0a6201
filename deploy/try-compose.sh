#!/usr/bin/env bash
# Tries the compose cluster as a newcomer would: starts it, scales it, asks its DNS, plays on it from inside and from this host
# through the published ports, and ends it. Images are built first unless NO_BUILD is set. Needs dig and curl.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=shardkeep-try
dns_port=${SHARDKEEP_DNS_PORT:-7053}
players=${PLAYERS:-20}

compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }
services() { compose config --services | grep -vxE "demo|tool|${WITHOUT:-none}"; }
say() { printf '\n== %s\n' "$*"; }
trap 'compose down --volumes --remove-orphans >/dev/null 2>&1' EXIT

replicas_in_dns() { dig +short "@127.0.0.1" -p "$dns_port" "_shardkeep._tcp.$1.shardkeep.test" SRV | grep -c shardkeep || true; }
wait_for_dns() { # name, replicas
  local began; began=$(date +%s%N)
  until [ "$(replicas_in_dns "$1")" = "$2" ]; do
    sleep 0.1
    [ $(( ($(date +%s%N) - began) / 1000000000 )) -lt 60 ] || { echo "DNS does not name $2 replicas of $1" >&2; exit 1; }
  done
  echo "DNS names $2 replicas of $1 after $(( ($(date +%s%N) - began) / 1000000 )) ms"
}

say "up"
# shellcheck disable=SC2046 # one word per service
compose up -d ${NO_BUILD:+--no-build} $(services)
wait_for_dns gateway 2
wait_for_dns login 2

say "scale"
compose up -d --no-build --no-recreate --scale login=2 --scale gateway=3 login gateway
wait_for_dns gateway 4
wait_for_dns login 3
compose run --rm -T tool status

say "players inside the network"
compose run --rm -T demo demo --dns dns:7053 --registry registry:7001 --tls-dir /tls --players "$players" --seconds 30
sleep 6 # one scrape
attached=$(curl -fsS 127.0.0.1:9090/api/v1/query --data-urlencode \
  'query=sum by (instance) (shardkeep_gateway_handshakes_total{kind="attach", outcome="ok"}) > 0' |
  grep -oE '"instance":"[^"]*"},"value":\[[^]]*\]' | sed -E 's/"instance":"([^"]*)".*"([0-9]+)"\]/\1 \2/')
printf 'sessions attached, by gateway:\n%s\n' "$attached"
[ "$(wc -l <<<"$attached")" -ge 3 ] || { echo "players did not spread over the gateways" >&2; exit 1; }

say "players on this host, through the published ports alone"
compose up -d --no-build --no-recreate --scale login=0 --scale gateway=0 login gateway
wait_for_dns gateway 1
wait_for_dns login 1
registry=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(compose ps -q registry)")
docker run --rm --network host -v "${COMPOSE_PROJECT_NAME}_tls:/tls:ro" shardkeep/tool demo \
  --dns "127.0.0.1:$dns_port" --registry "$registry:7001" --tls-dir /tls --players 6 --seconds 20

say "down"
compose down --volumes
trap - EXIT
