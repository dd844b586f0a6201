#!/usr/bin/env bash
# Builds shardkeep/<daemon>:latest for every daemon, and shardkeep/tool: deploy/images.sh [profile], quick by default.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-quick}
for service in $(ls services) tool; do
  echo "building shardkeep/$service"
  docker build --quiet -f deploy/Dockerfile --build-arg "PROFILE=$profile" --build-arg "SERVICE=$service" \
    -t "shardkeep/$service" . >/dev/null
done
docker images --format '{{.Repository}} {{.Size}}' 'shardkeep/*'
