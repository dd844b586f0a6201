#!/usr/bin/env bash
# Builds shardkeep/<daemon>:latest for every daemon, and shardkeep/tool.
set -euo pipefail
cd "$(dirname "$0")/.."
for service in dns login registry gateway world zone ai chat dbcache billing gm logs tool; do
  echo "building shardkeep/$service"
  docker build --quiet -f deploy/Dockerfile --build-arg "SERVICE=$service" -t "shardkeep/$service" . >/dev/null
done
