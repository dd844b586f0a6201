#!/usr/bin/env python3
"""Prints the test vectors of docs/protocol.md section 17, made by code that shares nothing with the project's own:
the SRP values by PyPI's `srp`, those of a registration by `cryptography`, the rest by the standard library.
`--check FILE` compares instead of printing."""

import hashlib
import hmac
import struct
import sys

import srp._pysrp as srp
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

srp.rfc5054_enable()
SRP = {"hash_alg": srp.SHA256, "ng_type": srp.NG_2048}
N = int(srp._ng_const[srp.NG_2048][0], 16)

REQUEST, REPLY = 0, 1


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def extract(salt, ikm):
    return mac(salt, ikm)


def expand(prk, info, length):
    return mac(prk, info.encode() + b"\x01")[:length]


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """One protobuf field: bytes and text with their length, numbers as varints, lists of numbers packed."""
    if isinstance(value, list):
        value = b"".join(map(varint, value))
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def message(kind, opcode, request, *fields):
    payload = b"".join(field(number + 1, value) for number, value in enumerate(fields))
    return bytes([kind]) + struct.pack("<H", opcode) + varint(request) + varint(len(payload)) + payload


def preface(service):
    return b"SKEP" + struct.pack("<HBB", 1, service, 0) + sha256(b"dev")[:4]


def number(value):
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class Exchange:
    """One SRP exchange with everything fixed."""

    def __init__(self, account, password, salt, a, b):
        x = int.from_bytes(sha256(salt, sha256(account.encode() + b":" + password.encode())), "big")
        self.salt, self.a, self.b, self.v = salt, a, b, number(pow(2, x, N))
        user = srp.User(account, password, bytes_a=a.rjust(256, b"\0"), **SRP)
        _, self.A = user.start_authentication()
        server = srp.Verifier(account, salt, self.v, self.A, bytes_b=b.rjust(256, b"\0"), **SRP)
        _, self.B = server.get_challenge()
        self.M1 = user.process_challenge(salt, self.B)
        self.M2 = server.verify_session(self.M1)
        user.verify_session(self.M2)
        assert user.authenticated() and server.authenticated()
        self.S, self.K = number(user.S), user.get_session_key()

    def print(self):
        for name in ("salt", "a", "b", "v", "A", "B", "S", "K", "M1", "M2"):
            show(name, getattr(self, name))


def leading_zero(what):
    """The first exchange whose `what` is a byte shorter than N."""
    for count in range(100_000):
        tail = struct.pack(">I", count)
        salt = bytes(range(0x10, 0x20)) if what != "v" else bytes(range(0x10, 0x1C)) + tail
        a = b"\xa1" * 28 + (tail if what in "AS" else b"\xa1" * 4)
        b = b"\xb2" * 28 + (tail if what == "B" else b"\xb2" * 4)
        if what == "v":
            x = int.from_bytes(sha256(salt, sha256(b"alice:correct horse")), "big")
            if pow(2, x, N).bit_length() > 2040:
                continue
        if what == "A" and pow(2, int.from_bytes(a, "big"), N).bit_length() > 2040:
            continue
        exchange = Exchange("alice", "correct horse", salt, a, b)
        if len(getattr(exchange, what)) == 255:
            return exchange
    raise SystemExit("nothing found")


LINES = []


def show(name, value):
    LINES.append(f"{name} = {value if isinstance(value, str) else value.hex()}")


def title(text, section):
    LINES.extend(["", f"# {text}", f"[{section}]"])


def main():
    LINES.append("# Account: alice; password: correct horse; group: 2048 bits; deployment: dev. All values hexadecimal.")
    title("SRP with everything fixed.", "srp")
    plain = Exchange("alice", "correct horse", bytes(range(0x10, 0x20)), b"\xa1" * 32, b"\xb2" * 32)
    plain.print()
    for what in "ABSv":
        title(f"{what} is a byte shorter than N.", f"srp short {what}")
        leading_zero(what).print()
    chain = login(plain)
    tickets(chain)
    session(expand(chain, "shardkeep v1 ticket id", 16), expand(chain, "shardkeep v1 ticket key", 32))
    on_quic(plain, expand(chain, "shardkeep v1 ticket id", 16), expand(chain, "shardkeep v1 ticket key", 32))
    registration(plain)
    second_factor()


def registration(exchange):
    title("Registering that account at a region with this key; the invitation is the text `invitation`.", "registration")
    region, client = b"\x37" * 32, b"\x48" * 32
    region_key, client_key = (X25519PrivateKey.from_private_bytes(secret) for secret in (region, client))
    region_public, client_public = (key.public_key().public_bytes_raw() for key in (region_key, client_key))
    shared = region_key.exchange(X25519PublicKey.from_public_bytes(client_public))
    secret = extract(sha256(b"shardkeep v1 register", preface(1), client_public, region_public), shared)
    request_key = expand(secret, "shardkeep v1 register request", 32)
    reply_key = expand(secret, "shardkeep v1 register reply", 32)
    fields = ("alice", 2048, exchange.salt, exchange.v, "invitation")
    wanted = b"".join(field(number + 1, value) for number, value in enumerate(fields))
    show("region secret", region)
    show("region public", region_public)
    show("client secret", client)
    show("request key", request_key)
    show("reply key", reply_key)
    show("Registration", wanted)
    sealed = AESGCM(request_key).encrypt(bytes(12), wanted, b"")
    show("Register", message(REQUEST, 0x0121, 1, client_public, sealed))
    made = field(1, 7)
    show("NewAccount", made)
    show("Registered", message(REPLY, 0x0121, 1, AESGCM(reply_key).encrypt(bytes(12), made, b"")))


def second_factor():
    title("Codes of a second factor, as text, by the time in seconds since 1970 (RFC 6238, appendix B, last six digits).",
          "second factor")
    secret = b"12345678901234567890"
    show("secret", secret)
    for seconds in (59, 1111111109, 2000000000):
        tag = hmac.new(secret, struct.pack(">Q", seconds // 30), hashlib.sha1).digest()
        number = struct.unpack_from(">I", tag, tag[-1] & 15)[0] & 0x7FFFFFFF
        show(f"code at {seconds}", f"{number % 1_000_000:06}".encode())


def login(exchange):
    title("The keys of a login with the first exchange; whole messages, request ids 1 and 2.", "login")
    hello = message(REQUEST, 0x0100, 1, "alice", [1, 2], [2048], b"\xc1" * 32, 1_000_000)
    challenge = message(REPLY, 0x0100, 1, 2048, exchange.salt, exchange.B, 1, b"\xd2" * 32)
    proof = message(REQUEST, 0x0101, 2, exchange.A, exchange.M1)
    show("preface", preface(1))
    show("Hello", hello)
    show("Challenge", challenge)
    show("Proof", proof)
    th1 = sha256(preface(1), hello, challenge, proof)
    root = extract(th1, exchange.K)
    finished = mac(expand(root, "shardkeep v1 login server finished", 32), th1)
    verified = message(REPLY, 0x0101, 2, exchange.M2, finished)
    th2 = sha256(preface(1), hello, challenge, proof, verified)
    show("th1", th1)
    show("root", root)
    show("client key", expand(root, "shardkeep v1 login client key", 32))
    show("server key", expand(root, "shardkeep v1 login server key", 32))
    show("Verified", verified)
    show("th2", th2)
    show("Finished.finished", mac(expand(root, "shardkeep v1 login client finished", 32), th2))
    return expand(root, "shardkeep v1 ticket chain", 32)


def tickets(chain):
    title("The ticket chain of that login.", "tickets")
    show("chain 0", chain)
    for index in range(3):
        show(f"ticket {index} id", expand(chain, "shardkeep v1 ticket id", 16))
        show(f"ticket {index} key", expand(chain, "shardkeep v1 ticket key", 32))
        chain = expand(chain, "shardkeep v1 ticket next", 32)


def session(ticket_id, ticket_key):
    title("Attaching with ticket 0 of that chain; suites 1 and 2 offered, suite 1 taken.", "attach")
    client_random, server_random, suites = b"\xe3" * 32, b"\xf4" * 32, bytes([1, 2])
    key = expand(ticket_key, "shardkeep v1 attach mac", 32)
    client_mac = mac(key, b"client", preface(2), ticket_id, client_random, bytes([len(suites)]), suites)
    attach = message(REQUEST, 0x0200, 1, ticket_id, client_random, list(suites), client_mac)
    server_mac = mac(key, b"server", sha256(preface(2), attach), server_random, bytes([1, 0]))
    attached = message(REPLY, 0x0200, 1, server_random, 1, server_mac)
    show("preface", preface(2))
    show("ticket id", ticket_id)
    show("ticket key", ticket_key)
    show("Attach", attach)
    show("Attached", attached)
    gateway, world = derived(ticket_key, attach, attached)

    title("Resuming that session at its gateway, suite 2 taken.", "resume")
    session_id, client_random, server_random = bytes(range(0x70, 0x80)), b"\x15" * 32, b"\x26" * 32
    start = (b"client", preface(2), session_id, client_random, bytes([len(suites)]), suites)
    gateway_key, world_key = (expand(key, "shardkeep v1 resume mac", 32) for key in (gateway, world))
    resume = message(
        REQUEST, 0x0202, 7, session_id, client_random, list(suites), mac(gateway_key, *start), mac(world_key, *start)
    )
    show("session id", session_id)
    show("Resume", resume)
    for which, resume_key, mac_key in ((1, gateway, gateway_key), (2, world, world_key)):
        if which == 2:
            title("The same Resume answered with the world's key.", "resume by world")
        server_mac = mac(mac_key, b"server", sha256(preface(2), resume), server_random, bytes([2, which]))
        attached = message(REPLY, 0x0202, 7, server_random, 2, server_mac, which)
        show("Attached", attached)
        derived(resume_key, resume, attached)
    title("The client key of the resume by the world's key after a KeyUpdate.", "key update")
    secret = extract(sha256(preface(2), resume, attached), world)
    show("key", expand(expand(secret, "shardkeep v1 session client key", 32), "shardkeep v1 key update", 32))


def on_quic(exchange, ticket_id, ticket_key):
    """The first login and the attach again, where the TLS exporter follows the preface in every transcript."""
    title("The login's messages on a connection with this exporter.", "login on quic")
    exporter = b"\x37" * 32
    hello = message(REQUEST, 0x0100, 1, "alice", [1, 2], [2048], b"\xc1" * 32, 1_000_000)
    challenge = message(REPLY, 0x0100, 1, 2048, exchange.salt, exchange.B, 1, b"\xd2" * 32)
    proof = message(REQUEST, 0x0101, 2, exchange.A, exchange.M1)
    show("exporter", exporter)
    th1 = sha256(preface(1), exporter, hello, challenge, proof)
    show("th1", th1)
    show("root", extract(th1, exchange.K))

    title("Attaching with that ticket 0 on a connection with this exporter.", "attach on quic")
    client_random, server_random, suites = b"\xe3" * 32, b"\xf4" * 32, bytes([1, 2])
    start = preface(2) + exporter
    key = expand(ticket_key, "shardkeep v1 attach mac", 32)
    client_mac = mac(key, b"client", start, ticket_id, client_random, bytes([len(suites)]), suites)
    attach = message(REQUEST, 0x0200, 1, ticket_id, client_random, list(suites), client_mac)
    server_mac = mac(key, b"server", sha256(start, attach), server_random, bytes([1, 0]))
    attached = message(REPLY, 0x0200, 1, server_random, 1, server_mac)
    show("Attach", attach)
    show("Attached", attached)
    secret = extract(sha256(start, attach, attached), ticket_key)
    show("client key", expand(secret, "shardkeep v1 session client key", 32))
    show("server key", expand(secret, "shardkeep v1 session server key", 32))
    show("datagram key", expand(secret, "shardkeep v1 session datagram key", 32))


def derived(key, request, attached):
    secret = extract(sha256(preface(2), request, attached), key)
    show("client key", expand(secret, "shardkeep v1 session client key", 32))
    show("server key", expand(secret, "shardkeep v1 session server key", 32))
    keys = expand(secret, "shardkeep v1 gateway resume", 32), expand(secret, "shardkeep v1 world resume", 32)
    show("gateway resume key", keys[0])
    show("world resume key", keys[1])
    return keys


if __name__ == "__main__":
    main()
    text = "\n".join(LINES) + "\n"
    if sys.argv[1:2] == ["--check"]:
        with open(sys.argv[2], encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{sys.argv[2]} differs from what PyPI's srp gives")
    else:
        sys.stdout.write(text)
