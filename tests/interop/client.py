#!/usr/bin/env python3
"""A whole player in Python, written from docs/protocol.md alone, with PyPI's `srp`, `cryptography`, `aioquic` and
`websockets`: finds the cluster by DNS, logs in, selects a world, attaches, makes a character, enters, walks, loses its
connection, resumes and logs out, on whichever lanes. Prints what happened as JSON; exit code 1 and a line on standard
error if anything went wrong."""

import argparse
import hashlib
import hmac
import itertools
import json
import struct
import subprocess
import sys
import time

import srp

from find import find
from lanes import LANES
from shares import KeyShares
from wire import (
    ACK, ERROR, EVENT, GATEWAY, LOGIN, REPLY, REQUEST, STATE, Connection, Datagrams, Message, ProtocolError, Refused,
    decode, encode, expand, extract, first, mac, random, sha256,
)

SUITES = [1, 2]
N_3072 = b"".join(b"""
FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 020BBEA6 3B139B22 514A0879 8E3404DD EF9519B3
CD3A431B 302B0A6D F25F1437 4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED EE386BFB 5A899FA5
AE9F2411 7C4B1FE6 49286651 ECE45B3D C2007CB8 A163BF05 98DA4836 1C55D39A 69163FA8 FD24CF5F 83655D23 DCA3AD96 1C62F356
208552BB 9ED52907 7096966D 670C354E 4ABC9804 F1746C08 CA18217C 32905E46 2E36CE3B E39E772C 180E8603 9B2783A2 EC07A28F
B5C55DF0 6F4C52C9 DE2BCBF6 95581718 3995497C EA956AE5 15D22618 98FA0510 15728E5A 8AAAC42D AD33170D 04507A33 A85521AB
DF1CBA64 ECFB8504 58DBEF0A 8AEA7157 5D060C7D B3970F85 A6E1E4C7 ABF5AE8C DB0933D7 1E8C94E0 4A25619D CEE3D226 1AD2EE6B
F12FFA06 D98A0864 D8760273 3EC86A64 521F2B18 177B200C BBE11757 7A615D6C 770988C0 BAD946E2 08E24FA0 74E5AB31 43DB5BFC
E0FD108E 4B82D120 A93AD2CA FFFFFFFF FFFFFFFF""".split())
# Section 7, by their bits; `srp` has no name for the second.
GROUPS = {
    2048: {"ng_type": srp.NG_2048},
    3072: {"ng_type": srp.NG_CUSTOM, "n_hex": N_3072, "g_hex": b"5"},
    4096: {"ng_type": srp.NG_4096},
}
HELLO, PROOF, FINISHED, PUZZLE, WORLD_LIST, SELECT_WORLD = 0x0100, 0x0101, 0x0102, 0x0103, 0x0110, 0x0111
SECOND_FACTOR = 0x0120
ATTACH, CONFIRM, RESUME, LOGOUT = 0x0200, 0x0201, 0x0202, 0x0204
MOVE, GET_INVENTORY, AVATAR, CELL = 0x1001, 0x1010, 0x1080, 0x1081
LIST_CHARACTERS, CREATE_CHARACTER, ENTER, QUEUE_POSITION = 0x3000, 0x3001, 0x3002, 0x3010
WORLD_UP = 1
CLIENT_VERSION = 1_000_000


def check(condition, what):
    if not condition:
        raise ProtocolError(what)


def solve(token, bits):
    """Section 7, puzzles: token and solution."""
    check(len(token) == 25 and bits <= 24, "a puzzle that asks for too much")
    start = hashlib.sha256(b"shardkeep v1 puzzle" + token)
    for solution in itertools.count():
        attempt = start.copy()
        attempt.update(struct.pack("<Q", solution))
        if int.from_bytes(attempt.digest(), "big") >> (256 - bits) == 0:
            return token + struct.pack("<Q", solution)


class Login:
    """Section 7: a connection that proves a password and then hands out tickets."""

    def __init__(self, address, deployment, lane, ca):
        self.where = (address, LOGIN, deployment, lane, ca)
        self.connection = Connection(*self.where)
        self.transcript = self.connection.preface
        self.requests, self.worlds, self.puzzles = 0, None, 0

    def ask(self, opcode, payload):
        self.requests += 1
        request = Message(REQUEST, opcode, payload, self.requests)
        plain = self.connection.sending is None
        raw = self.connection.send(request)
        self.transcript += raw if plain else b""
        deadline = time.monotonic() + 10
        while True:
            message = self.receive(deadline)
            check(message, "no reply in time")
            if message.kind == REPLY and message.request == self.requests:
                if message.opcode == ERROR:
                    raise Refused(message.payload)
                return message

    def receive(self, deadline):
        message = self.connection.receive(deadline)
        if message and message.opcode == WORLD_LIST:
            self.worlds = [decode(world) for world in decode(message.payload).get(1, [])]
        return message

    def hello(self, payload):
        """The Challenge, after as many puzzles as a crowded server may ask."""
        answered = payload
        for _ in range(8):
            self.transcript = self.connection.preface
            try:
                reply = self.ask(HELLO, answered)
            except ConnectionError:
                # It has hung up while the puzzle was solved.
                if answered is payload:
                    raise
                self.connection = Connection(*self.where)
                continue
            if reply.opcode == HELLO:
                return reply
            check(reply.opcode == PUZZLE and self.puzzles < 4, "neither a Challenge nor a puzzle that can be solved")
            self.puzzles += 1
            puzzle = decode(reply.payload)
            answer = solve(first(puzzle, 1), first(puzzle, 2, 0))
            answered = payload + bytes([15 << 3 | 2, len(answer)]) + answer
        raise ProtocolError("the server only hangs up")

    def log_in(self, account, password, code=None):
        account = account.strip(" ").lower()
        shares = KeyShares()
        offer = encode(account, SUITES, list(GROUPS), random(), CLIENT_VERSION, shares.offer)
        reply = self.hello(offer)
        self.transcript += reply.raw
        challenge = decode(reply.payload)
        check(first(challenge, 1) in GROUPS, "another group than offered")
        suite = first(challenge, 4)
        check(suite in SUITES, "another suite than offered")
        self.group, self.key_share = first(challenge, 1), first(challenge, 6)

        srp.rfc5054_enable()
        user = srp.User(account, password, hash_alg=srp.SHA256, **GROUPS[self.group])
        _, public = user.start_authentication()
        proof = user.process_challenge(first(challenge, 2), first(challenge, 3))
        check(proof, "the server's public number is degenerate")

        reply = self.ask(PROOF, encode(public, proof))
        th1 = sha256(self.transcript)
        self.transcript += reply.raw
        verified = decode(reply.payload)
        user.verify_session(first(verified, 1))
        check(user.authenticated(), "the server does not know the password's verifier")
        root = extract(th1, user.get_session_key() + shares.secret(self.key_share))
        expected = mac(expand(root, "shardkeep v1 login server finished"), th1)
        check(hmac.compare_digest(expected, first(verified, 2)), "the handshake was altered")

        keys = (expand(root, f"shardkeep v1 login {side} key") for side in ("client", "server"))
        self.connection.seal(suite, *keys)
        self.chain = expand(root, "shardkeep v1 ticket chain")
        self.index = 0
        finished = mac(expand(root, "shardkeep v1 login client finished"), sha256(self.transcript))
        try:
            return decode(self.ask(FINISHED, encode(finished)).payload)
        except Refused as refused:
            if refused.code != "SECOND_FACTOR" or not code:
                raise
        return decode(self.ask(SECOND_FACTOR, encode(code)).payload)

    def wait_for_world(self, wanted, seconds):
        """The id of the world, or of the first that is up."""
        deadline = time.monotonic() + seconds
        while True:
            for world in self.worlds or []:
                if first(world, 3) == WORLD_UP and wanted in (None, first(world, 1)):
                    return first(world, 1)
            check(self.receive(deadline), "no world is up")

    def select(self, world, seconds):
        """(gateway, ticket id, ticket key)."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                offer = decode(self.ask(SELECT_WORLD, encode(world)).payload)
                break
            except Refused as refused:
                if refused.code != "UNAVAILABLE" or time.monotonic() > deadline:
                    raise
                time.sleep(refused.retry_after)
        check(first(offer, 2, 0) == self.index, "another ticket than the next")
        ticket = expand(self.chain, "shardkeep v1 ticket id", 16), expand(self.chain, "shardkeep v1 ticket key")
        self.chain, self.index = expand(self.chain, "shardkeep v1 ticket next"), self.index + 1
        return (split_address(first(offer, 1)), *ticket)


class Session:
    """Sections 9 to 12: one player's presence, over as many connections as it takes."""

    def __init__(self, deployment, lane, ca):
        self.deployment, self.lane, self.ca = deployment, lane, ca
        self.requests = self.received = self.acknowledged = self.sent = 0
        self.unacknowledged, self.replies, self.states = [], {}, {}
        self.leaving = False

    def attach(self, address, ticket_id, ticket_key):
        client_random, suites = random(), bytes(SUITES)
        connection = Connection(address, GATEWAY, self.deployment, self.lane, self.ca)
        key = expand(ticket_key, "shardkeep v1 attach mac")
        tag = mac(key, b"client", connection.preface, ticket_id, client_random, bytes([len(suites)]), suites)
        self.handshake(connection, ATTACH, encode(ticket_id, client_random, SUITES, tag), {0: (ticket_key, key)})

    def resume(self, address):
        client_random, suites = random(), bytes(SUITES)
        connection = Connection(address, GATEWAY, self.deployment, self.lane, self.ca)
        start = b"client", connection.preface, self.id, client_random, bytes([len(suites)]), suites
        keys = {}
        for which, key in ((1, self.gateway_key), (2, self.world_key)):
            keys[which] = key, expand(key, "shardkeep v1 resume mac")
        tags = [mac(mac_key, *start) for _, mac_key in keys.values()]
        return self.handshake(connection, RESUME, encode(self.id, client_random, SUITES, *tags), keys)

    def resume_anywhere(self, name_server, seconds):
        """Section 11: first the session's own gateway, then any; with growing pauses, while the session may live."""
        deadline, pause = time.monotonic() + seconds, 0.1
        while True:
            for address in [self.gateway, *find(name_server, f"_shardkeep._tcp.{self.any_gateway}")]:
                try:
                    return self.resume(address)
                except OSError as error:
                    last = error
                except Refused as refused:
                    if refused.code not in ("TICKET_INVALID", "DRAINING", "UNAVAILABLE"):
                        raise
                    last = refused
            if time.monotonic() > deadline:
                raise last
            time.sleep(pause)
            pause = min(2 * pause, 2)

    def handshake(self, connection, opcode, payload, keys):
        request = connection.send(Message(REQUEST, opcode, payload, self.next_request()))
        reply = self.handshake_reply(connection)
        attached = decode(reply.payload)
        suite, which = first(attached, 2), first(attached, 4, 0)
        check(suite in SUITES and which in keys, "a suite or key that was not offered")
        key, mac_key = keys[which]
        digest = sha256(connection.preface, request)
        expected = mac(mac_key, b"server", digest, first(attached, 1), bytes([suite, which]))
        check(hmac.compare_digest(expected, first(attached, 3)), "the gateway does not know the key")
        secret = extract(sha256(connection.preface, request, reply.raw), key)
        connection.seal(suite, *(expand(secret, f"shardkeep v1 session {side} key") for side in ("client", "server")))
        connection.datagrams = Datagrams(suite, expand(secret, "shardkeep v1 session datagram key"))

        connection.send(Message(REQUEST, CONFIRM, encode(self.received), self.next_request()))
        ready = decode(self.handshake_reply(connection).payload)
        self.connection, self.id = connection, first(ready, 1)
        self.gateway, self.any_gateway = split_address(first(ready, 5)), first(ready, 6, b"").decode()
        if which in (0, 1, 2):
            self.gateway_key = expand(secret, "shardkeep v1 gateway resume")
        if which in (0, 2):
            self.world_key = expand(secret, "shardkeep v1 world resume")
        continued = bool(first(ready, 3, 0))
        if opcode == RESUME:
            self.replay(continued, first(ready, 2, 0))
        return continued

    def handshake_reply(self, connection):
        """Between the replies of the handshake the server sends nothing else."""
        message = connection.receive(time.monotonic() + 10)
        check(message and message.kind == REPLY, "no reply in time")
        if message.opcode == ERROR:
            raise Refused(message.payload)
        return message

    def replay(self, continued, server_has):
        """Section 11: what the other side has not got is sent again, before anything new."""
        if continued:
            self.drop_acknowledged(server_has)
        else:
            self.sent = len(self.unacknowledged)
            self.received = self.acknowledged = 0
        for message in self.unacknowledged:
            self.connection.send(message)

    def drop_acknowledged(self, server_has):
        check(server_has <= self.sent, "an acknowledgement of what was never sent")
        kept = self.sent - server_has
        self.unacknowledged = self.unacknowledged[len(self.unacknowledged) - kept :] if kept else []

    def next_request(self):
        self.requests += 1
        return self.requests

    def ask(self, opcode, payload, seconds=20):
        """The payload of the reply to a request."""
        request = Message(REQUEST, opcode, payload, self.next_request())
        self.sent += 1
        self.unacknowledged.append(request)
        self.connection.send(request)
        deadline = time.monotonic() + seconds
        while request.request not in self.replies:
            check(self.pump(deadline), f"no reply to {opcode:#06x} in time")
        reply = self.replies.pop(request.request)
        if reply.opcode == ERROR:
            raise Refused(reply.payload)
        return decode(reply.payload)

    def pump(self, deadline):
        """Receives one message; False when the deadline has passed. Acknowledges at once: simple, and allowed."""
        message = self.connection.receive(deadline)
        if message is None:
            return False
        if message.kind == EVENT and message.opcode == ACK:
            self.drop_acknowledged(first(decode(message.payload), 1, 0))
            return True
        if message.kind == STATE:
            self.states.setdefault(message.opcode, []).append(message.payload)
            return True
        if message.kind == REPLY:
            self.replies[message.request] = message
        if message.opcode & 0xFF00 != 0x0200 and (message.kind == REPLY or message.opcode >= 0x0100):
            self.received += 1
            # After a logout the server closes: what else arrives before its last word needs no acknowledgement.
            if not self.leaving:
                self.connection.send(Message(EVENT, ACK, encode(self.received)))
        return True

    def wait_for_avatar(self, moved_past=None, seconds=10):
        """(x, y) of the own avatar, once it has applied that Move."""
        deadline = time.monotonic() + seconds
        while True:
            for payload in self.states.pop(AVATAR, []):
                _, sequence, x, y = struct.unpack_from("<IIii", payload)
                if moved_past is None or sequence >= moved_past:
                    return x, y
            check(self.pump(deadline), "the avatar is not seen")

    def move(self, sequence, x, y):
        payload = struct.pack("<IhhB", sequence, x, y, 0)
        self.connection.send(Message(STATE, MOVE, payload))

    def log_out(self):
        self.leaving = True
        self.connection.send(Message(REQUEST, LOGOUT, b"", self.next_request()))
        try:
            while self.pump(time.monotonic() + 10):
                pass
        except Refused as refused:
            check(refused.code == "LOGGED_OUT", f"logged out with {refused}")
            return
        raise ProtocolError("the session does not end")


def split_address(address):
    host, port = address.decode().rsplit(":", 1)
    return host, int(port)


def play(options):
    name_server = split_address(options.dns.encode())
    servers = [options.login] if options.login else find(name_server, f"_shardkeep._tcp.login.{options.zone}")
    check(servers, "DNS knows no login server")
    login = Login(servers[0], options.deployment, options.lane, options.ca)
    welcome = login.log_in(options.account, options.password, options.code)
    world = login.wait_for_world(options.world, options.patience)
    gateway, ticket_id, ticket_key = login.select(world, options.patience)

    session = Session(options.deployment, options.lane, options.ca)
    session.attach(gateway, ticket_id, ticket_key)
    login.connection.close()
    characters = session.ask(LIST_CHARACTERS, b"").get(1, [])
    if not characters:
        characters = [first(session.ask(CREATE_CHARACTER, encode(options.character)), 1)]
    character = decode(characters[0])
    entered = session.ask(ENTER, encode(first(character, 1)), options.patience)
    before = session.wait_for_avatar()

    session.move(1, 3000, 0)
    time.sleep(0.5)
    session.move(2, 0, 0)
    after = session.wait_for_avatar(moved_past=2)
    check(after[0] > before[0], f"the avatar does not walk: {before} to {after}")

    datagrams = session.connection.datagrams_opened
    session.connection.close()
    session.lane = options.resume_lane or options.lane
    if options.while_away:
        subprocess.run(options.while_away, shell=True, check=True)
    continued = session.resume_anywhere(name_server, options.patience)
    session.connection.update_key()
    inventory = session.ask(GET_INVENTORY, b"")
    cells = len(session.states.get(CELL, []))
    session.log_out()
    return {
        "login": servers[0],
        "gateway": gateway,
        "account": first(welcome, 1),
        "group": login.group,
        "post_quantum": bool(login.key_share),
        "puzzles": login.puzzles,
        "world": world,
        "character": first(character, 2).decode(),
        "entity": first(entered, 2),
        "walked_mm": after[0] - before[0],
        "cells_seen": cells,
        "resumed_at": session.gateway,
        "continued": continued,
        "lanes": [options.lane, session.lane],
        "datagrams": datagrams,
        "items": len(inventory.get(1, [])),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dns", default="127.0.0.1:5353", help="name server, host:port")
    parser.add_argument("--zone", default="shardkeep.test")
    parser.add_argument("--login", type=lambda text: split_address(text.encode()), help="host:port, instead of DNS")
    parser.add_argument("--deployment", default="dev")
    parser.add_argument("--lane", choices=LANES, default="tcp")
    parser.add_argument("--resume-lane", choices=LANES, help="lane of the second connection to the gateway; default: the first")
    parser.add_argument("--ca", help="PEM file of the authority of the servers' certificates; default: any will do")
    parser.add_argument("--account", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--code", help="of the second factor, if the account has one")
    parser.add_argument("--world", type=int, help="id; default: the first that is up")
    parser.add_argument("--character", default="Python", help="name, if the account has no character yet")
    parser.add_argument("--while-away", help="shell command to run between losing the connection and resuming")
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for a world, for entry, for resuming")
    try:
        print(json.dumps(play(parser.parse_args())))
    except (ProtocolError, Refused, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
