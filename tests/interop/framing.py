#!/usr/bin/env python3
"""Prints the section "Framing" of docs/protocol.md, section 17: varints, messages, movement, records.

Shares no code with the project; the ciphers are those of PyPI's `cryptography`.
"""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

ID_COLUMN, HEX_COLUMN = 22, 86


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """One protobuf field: a varint or a string."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value.encode()


def message(kind, opcode, payload, request=None, cls=None, key=None):
    head = struct.pack("<BH", kind, opcode)
    if kind < 2:
        head += varint(request)
    if kind == 3:
        head += bytes([cls]) + varint(key)
    return head + varint(len(payload)) + payload


def entry(entity, mask, rest):
    return struct.pack("<QB", entity, mask) + rest


def put(name, value):
    hexed = value.hex()
    print(name.ljust(ID_COLUMN) + hexed[:HEX_COLUMN])
    for at in range(HEX_COLUMN, len(hexed), HEX_COLUMN):
        print(" " * ID_COLUMN + hexed[at : at + HEX_COLUMN])


def block(text, vectors):
    print(f"\n{text}\n\n```")
    for name, value in vectors:
        put(name, value)
    print("```")


PING = message(2, 0x0004, field(1, 1))
ACK = message(2, 0x0002, field(1, 2**32))
SPEAK = message(0, 0x2000, field(1, 1) + field(2, "hello"), request=300)
ERROR = message(1, 0x0001, field(1, 13) + field(2, "too far"), request=300)
KEY_UPDATE = message(2, 0x0003, b"")

AVATAR_ID, SWORD_ID = 1 << 60 | 42, 3 << 60 | 7
CELL_KEY = 1 << 32 | 16 << 16 | 15
MOVE = message(3, 0x1001, struct.pack("<IhhB", 7, -3000, 1500, 64), cls=0, key=0)
AVATAR = message(
    3, 0x1080, struct.pack("<IIiihhBHH", 123456, 7, 511999, 512000, -3000, 1500, 64, 90, 100), cls=0, key=0
)
KEYFRAME = (
    bytes([1])
    + struct.pack("<IIHH", 123456, 1, 15, 16)
    + varint(2)
    + entry(
        AVATAR_ID,
        0x1F,
        struct.pack("<BHB", 1, 0, 5) + b"Alice" + struct.pack("<HHhhBB", 31999, 0, -3000, 1500, 64, 229),
    )
    + entry(SWORD_ID, 0x03, struct.pack("<BHBHH", 3, 4, 0, 100, 200))
)
DELTA = (
    bytes([2])
    + struct.pack("<IIHH", 123457, 1, 15, 16)
    + varint(2)
    + entry(AVATAR_ID, 0x06, struct.pack("<HHhh", 31849, 75, 0, 0))
    + entry(SWORD_ID, 0x20, bytes([2]))
)

KEY = bytes(range(32))
NEXT_KEY = hmac.new(KEY, b"shardkeep v1 key update\x01", hashlib.sha256).digest()


def sealed(cipher, key, counter, plaintext):
    length = struct.pack("<H", len(plaintext) + 16)
    return length + cipher(key).encrypt(bytes(4) + struct.pack("<Q", counter), plaintext, length)


def records():
    yield "key", KEY
    yield "next key", NEXT_KEY
    contents = [(KEY, 0, PING), (KEY, 1, SPEAK), (KEY, 2, MOVE + KEY_UPDATE), (NEXT_KEY, 0, PING)]
    for suite, cipher in ((1, AESGCM), (2, ChaCha20Poly1305)):
        for number, (key, counter, plaintext) in enumerate(contents):
            yield f"suite {suite} record {number}", sealed(cipher, key, counter, plaintext)


def datagram(cipher, key, sequence, plaintext):
    length = struct.pack("<H", len(plaintext) + 16)
    nonce = bytes(4) + struct.pack("<Q", sequence)
    return struct.pack("<Q", sequence) + cipher(key).encrypt(nonce, plaintext, length)


def datagrams():
    for suite, cipher in ((1, AESGCM), (2, ChaCha20Poly1305)):
        yield f"suite {suite} first", datagram(cipher, KEY, 0, AVATAR)
        yield f"suite {suite} tenth", datagram(cipher, KEY, 9, AVATAR)
        yield f"suite {suite} next key", datagram(cipher, NEXT_KEY, 1 << 20, AVATAR)


print("### Framing")
block("Varints, by their value:", [(str(n), varint(n)) for n in (0, 127, 128, 300, 16384, 2**64 - 1)])
block(
    """Messages: a `Ping` event of value 1; an `Ack` of 2³²; a `Speak` request with number 300 that says `hello`; its refusal,
`Error` REFUSED with detail `too far`.""",
    [("Ping", PING), ("Ack", ACK), ("Speak", SPEAK), ("Error", ERROR)],
)
block(
    """Movement, as whole messages. `Move`: sequence 7, velocity (−3000, 1500), facing 64. `Avatar`: tick 123456, that
sequence, position (511999, 512000), the same velocity and facing, health 90 of 100. `Cell`: cell (15, 16) of map 1;
as a keyframe with the avatar of character 42, `Alice`, at (31999, 0) in the cell, the same velocity and facing,
health 229, and a sword on the ground (item 7) at (100, 200); then as a delta, one tick later and of the outer ring:
the avatar stands at (31849, 75), the sword was taken.""",
    [
        ("Move", MOVE),
        ("Avatar", AVATAR),
        ("Cell keyframe", message(3, 0x1081, KEYFRAME, cls=1, key=CELL_KEY)),
        ("Cell delta", message(3, 0x1081, DELTA, cls=2, key=CELL_KEY)),
    ],
)
block("A plain record with `Ping` and `Speak`:", [("plain record", struct.pack("<H", len(PING + SPEAK)) + PING + SPEAK)])
block(
    """Sealed records under the key below. The first two of each suite, counters 0 and 1, hold `Ping` and `Speak`, each
alone; the third, counter 2, holds `Move` and `KeyUpdate`; the fourth is the first under the next key and holds
`Ping`.""",
    records(),
)
block(
    """Datagrams with the `Avatar` above, sealed under the same key: the sequences 0 and 9, and 2²⁰, with which the next
key begins.""",
    datagrams(),
)
