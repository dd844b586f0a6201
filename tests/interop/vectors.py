#!/usr/bin/env python3
"""Prints the test vectors of docs/protocol.md section 17, made by code that shares nothing with the project's own:
the SRP values by PyPI's `srp`, those of registrations and key shares by `cryptography`, the rest by the standard library.
`--check FILE` compares instead of printing."""

import hashlib
import hmac
import struct
import sys

import srp._pysrp as srp
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

srp.rfc5054_enable()
# RFC 5054, appendix A. PyPI's srp has no name for the second.
N_3072 = """
FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 020BBEA6 3B139B22 514A0879 8E3404DD EF9519B3
CD3A431B 302B0A6D F25F1437 4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED EE386BFB 5A899FA5
AE9F2411 7C4B1FE6 49286651 ECE45B3D C2007CB8 A163BF05 98DA4836 1C55D39A 69163FA8 FD24CF5F 83655D23 DCA3AD96 1C62F356
208552BB 9ED52907 7096966D 670C354E 4ABC9804 F1746C08 CA18217C 32905E46 2E36CE3B E39E772C 180E8603 9B2783A2 EC07A28F
B5C55DF0 6F4C52C9 DE2BCBF6 95581718 3995497C EA956AE5 15D22618 98FA0510 15728E5A 8AAAC42D AD33170D 04507A33 A85521AB
DF1CBA64 ECFB8504 58DBEF0A 8AEA7157 5D060C7D B3970F85 A6E1E4C7 ABF5AE8C DB0933D7 1E8C94E0 4A25619D CEE3D226 1AD2EE6B
F12FFA06 D98A0864 D8760273 3EC86A64 521F2B18 177B200C BBE11757 7A615D6C 770988C0 BAD946E2 08E24FA0 74E5AB31 43DB5BFC
E0FD108E 4B82D120 A93AD2CA FFFFFFFF FFFFFFFF""".replace(" ", "").replace("\n", "")
GROUPS = {
    2048: {"ng_type": srp.NG_2048},
    3072: {"ng_type": srp.NG_CUSTOM, "n_hex": N_3072.encode(), "g_hex": b"5"},
    4096: {"ng_type": srp.NG_4096},
}


def modulus(bits):
    group = GROUPS[bits]
    if "n_hex" in group:
        return int(group["n_hex"], 16), int(group["g_hex"], 16)
    n, g = srp._ng_const[group["ng_type"]]
    return int(n, 16), int(g, 16)


N = modulus(2048)[0]

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


def payload_of(*fields):
    return b"".join(field(number + 1, value) for number, value in enumerate(fields))


def message(kind, opcode, request, *fields):
    payload = payload_of(*fields)
    return bytes([kind]) + struct.pack("<H", opcode) + varint(request) + varint(len(payload)) + payload


def preface(service):
    return b"SKEP" + struct.pack("<HBB", 1, service, 0) + sha256(b"dev")[:4]


def number(value):
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class Exchange:
    """One SRP exchange with everything fixed."""

    def __init__(self, account, password, salt, a, b, bits=2048):
        options = {"hash_alg": srp.SHA256, **GROUPS[bits]}
        n, g = modulus(bits)
        x = int.from_bytes(sha256(salt, sha256(account.encode() + b":" + password.encode())), "big")
        self.salt, self.a, self.b, self.v = salt, a, b, number(pow(g, x, n))
        user = srp.User(account, password, bytes_a=a.rjust(256, b"\0"), **options)
        _, self.A = user.start_authentication()
        server = srp.Verifier(account, salt, self.v, self.A, bytes_b=b.rjust(256, b"\0"), **options)
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
    for bits in (3072, 4096):
        title(f"The same in the group of {bits} bits.", f"srp {bits}")
        Exchange("alice", "correct horse", plain.salt, plain.a, plain.b, bits).print()
    chain = login(plain)
    puzzle()
    hybrid(plain)
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

    def code(seconds):
        tag = hmac.new(secret, struct.pack(">Q", seconds // 30), hashlib.sha1).digest()
        number = struct.unpack_from(">I", tag, tag[-1] & 15)[0] & 0x7FFFFFFF
        return f"{number % 1_000_000:06}".encode()

    for seconds in (59, 1111111109, 2000000000):
        show(f"code at {seconds}", code(seconds))
    show("two at 59", code(59 - 30) + code(59))


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


def puzzle():
    title("A puzzle for the Hello above from 192.0.2.7, made by a server with this seed; 12 bits.", "puzzle")
    seed, address = b"\x5e" * 32, bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
    made, bits = 1_700_000_000_123, 12
    payload = payload_of("alice", [1, 2], [2048], b"\xc1" * 32, 1_000_000)
    key = mac(seed, b"shardkeep v1 puzzle key", struct.pack("<Q", made // 600_000))
    seal = mac(key, address, struct.pack("<QB", made, bits), sha256(payload))[:16]
    token = struct.pack("<QB", made, bits) + seal
    solution = 0
    while int.from_bytes(sha256(b"shardkeep v1 puzzle", token, struct.pack("<Q", solution)), "big") >> (256 - bits):
        solution += 1
    show("seed", seed)
    show("address", address)
    show("Hello payload", payload)
    show("token", token)
    show("Puzzle", message(REPLY, 0x0103, 1, token, bits))
    show("solution", struct.pack("<Q", solution))
    answer = token + struct.pack("<Q", solution)
    answered = payload + field(15, answer)
    show("Hello answered", bytes([REQUEST]) + struct.pack("<H", 0x0100) + varint(1) + varint(len(answered)) + answered)


# What a server made of the offer below with the randomness 32 x 71: encapsulation is random in `cryptography`.
CIPHERTEXT = bytes.fromhex("""
287e0b6a4f4469dedc21694ba1c98f18c387a3f6b05b2f477d2ca36af8a235e7d68ee42af77c30da42dcaa748e378723af3f5b2fa3e3f22d4046
2b9c76cdbf0a6b4ceab453cdb94edd0c4467ae12aec35c4908227f2d84486d5adeededb913d413daf208fb86072c3764d34de2bf65e26cda834a
0b1910b5beefe3ac7921026247d5d6bfb85a62a9601535671f07ed611eb993f7e449652ab295c7f61c432651067121ddfe3c7a32c840bd5e653b
bba13939cd4ee18e548de67085d235003711a40ea593482ed3fea7d66146c0bb57174f5faeb9ad8b4f7c4b46754663ebc77aee040c166cfd8cfc
217e1a1b6b76e3162c6e1419e5de0a4f10e5ee1894cc1212ddbb52400e4a34dcbaf59276aaccc474c881761ef742930866400d70248c4f9f85eb
62b723116876ffe61279f6369d69c2aef21b6ee9b339e13f232a6ee11e7e72a137e81c77ad7f9e7075908169ac0dd5fbaa03037fec7c271e3912
6c84ae209c41b8b7df6a15cdfc68d16a906d4bfc1d17b2fa6f798f6f91e310da5490e7602dceb6a3bf1166daefea3b2018d7efb7c310f718adfa
a4bee5ffa4c3c7a35e81d20f3442dce1b8e41c1a63b4a87421c2cab725a840da15b084b23b6ae3fd48c8c7336a9b2774eb180774a982b851d83e
9796893dd088420ee7e37dcdbc0dfab59e19fcc878afc7a52f4b246ce9f4d049ca0242350bfa767d1a97b4419c64f510d9d4748ab72d7e25db00
ed7c6c5c0099424a82fe420f0fdaf98dee39450e2c878173714661c9fc3090f2836a7d277b6c9b176af2a40bac6f8d84da426f94f816c12bd54d
88c803c1b8719cbec8b61eb4bdd7d895fb2665f6e80c161739ad98a90ede71f10f91b3e1eae0b0ac003926c0909a42ae0b88bce76c0f2be4a4c9
de1c537021b2e1f445709480dbaea7ed0abefbb37ad93e7cb020f18aa8e7f749e7126ae6fa01a683af9c88ba1e9a156edec3a9fb8a30203f4346
4741a46ce99e1a39b54621563584b3a159f2362a1a1cf109cbbdf12d7cfd60697ab2a2a4407b77b5215197a10a33f0d5c25fb10224c40ae22b43
be54099defc8f904384807bcf98433e74fdcdb8e6f4ce6b68b083e880efa5c214c4427d9c38ea6f0cad4f1c778301acc8aec30bca9f313552b4e
b9ba0596c0246701b559662cf99bb498e855de951960b5607e9c8ff123beaf87df38e876f697471f809e0ff73202ac90e6b97d6d95bf71453971
ce20f81ae417a7d018d6554b64cb3275c967a6d14606f1e8ef82835615a697cf32c8971168810df9c268d0e9d5ce4bbcc2e18a9b6d0bdf255c0e
b04195067a00e86a6c30e57790d96a2419d7805202bbfc0ab6045fed353f1c6bfe0e8874196d0f3b7e528ad089d7d30cc75c82bbe392706b91d4
4c655668257e2525e342ac070096ed49c865739a3c25194887b81d37d163f929efdffdc41e361d8c87dd680531db8487fe463aa08684fec43bf0
b95e4ead8dbcbf465e2dd41b12cdc1a3e6a1d588ccfadc534483a3dd05b6f246eba611dee152728f45a1ad62
""")


def hybrid(exchange):
    title("Key shares, and the root of the login above with them. Seed of ML-KEM: d, then z.", "hybrid")
    seed, client, server = b"\x0d" * 32 + b"\x0a" * 32, b"\x31" * 32, b"\x42" * 32
    kem, client_key, server_key = MLKEM768PrivateKey.from_seed_bytes(seed), *map(x25519, (client, server))
    offer = kem.public_key().public_bytes_raw() + client_key.public_key().public_bytes_raw()
    answer = CIPHERTEXT + server_key.public_key().public_bytes_raw()
    agreed = client_key.exchange(X25519PublicKey.from_public_bytes(answer[1088:]))
    secret = kem.decapsulate(CIPHERTEXT) + agreed
    show("seed", seed)
    show("client x25519", client)
    show("server x25519", server)
    show("offer sha256", sha256(offer))
    show("answer", answer)
    show("secret", secret)
    hello = message(REQUEST, 0x0100, 1, "alice", [1, 2], [2048], b"\xc1" * 32, 1_000_000, offer)
    challenge = message(REPLY, 0x0100, 1, 2048, exchange.salt, exchange.B, 1, b"\xd2" * 32, answer)
    proof = message(REQUEST, 0x0101, 2, exchange.A, exchange.M1)
    th1 = sha256(preface(1), hello, challenge, proof)
    root = extract(th1, exchange.K + secret)
    show("Hello sha256", sha256(hello))
    show("Challenge sha256", sha256(challenge))
    show("th1", th1)
    show("root", root)
    show("client key", expand(root, "shardkeep v1 login client key", 32))
    show("server key", expand(root, "shardkeep v1 login server key", 32))


def x25519(private):
    return X25519PrivateKey.from_private_bytes(private)


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
