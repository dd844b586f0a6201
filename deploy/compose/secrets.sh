#!/usr/bin/env bash
# Runs in the one-shot `secrets` service of docker-compose.yml. Makes certificates and passwords, and writes into each
# volume below /secrets what one service needs and nothing else. A second run keeps what is valid, and renews what
# expires soon. The volume /authority holds the CA's key and all passwords; no other service mounts it.
set -euo pipefail
authority=/authority
secrets=/secrets
daemon_uid=10001 # the user of deploy/Dockerfile

shardkeep certs --dir "$authority" --replicas --owner "$daemon_uid" --deliver "$secrets" >/dev/null

# Prints the password of this name, drawn at the first call. Its letters need no quoting in URLs, SQL and ACLs.
password() {
  local file=$authority/$1.password
  if [ ! -s "$file" ]; then
    (umask 077 && head -c 24 /dev/urandom | base64 | tr '+/' '-_' >"$file.draft")
    mv "$file.draft" "$file"
  fi
  cat "$file"
}

# Writes standard input to a file that this user alone can read.
private() { # file, user id
  rm -f "$1"
  (umask 077 && cat >"$1")
  chown "$2" "$1"
}

# Writes standard input to a file for a server whose user id differs between images. The volume keeps others out.
for_server() { # file
  cat >"$1"
  chmod 0444 "$1"
}

# One PostgreSQL role and database per daemon. A role owns its database, so it can migrate its tables, and it can
# connect to no other database.
store_daemons=(login dbcache billing gm)
for daemon in "${store_daemons[@]}"; do
  private "$secrets/$daemon/settings.toml" "$daemon_uid" <<TOML
[$daemon]
store = "postgres://$daemon:$(password "postgres-$daemon")@postgres/$daemon"
TOML
done
password postgres-superuser | for_server "$secrets/postgres/superuser-password"
{
  echo "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;"
  for daemon in "${store_daemons[@]}"; do
    echo "CREATE ROLE $daemon LOGIN PASSWORD '$(password "postgres-$daemon")';"
    echo "CREATE DATABASE $daemon OWNER $daemon TEMPLATE template0 ENCODING 'UTF8';"
    echo "REVOKE ALL ON DATABASE $daemon FROM PUBLIC;"
  done
} | for_server "$secrets/postgres/roles.sql"

# Chat alone may use the bus, and only its own topics. A client without a password may send PING: that is the health check.
private "$secrets/chat/settings.toml" "$daemon_uid" <<TOML
[chat]
bus = "redis://chat:$(password redis-chat)@redis:6379"
TOML
for_server "$secrets/redis/users.acl" <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user chat on >$(password redis-chat) resetkeys resetchannels &shardkeep:* -@all +@connection +@pubsub -@admin -@dangerous +role +info
ACL
