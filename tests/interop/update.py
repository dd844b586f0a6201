#!/usr/bin/env python3
"""Prints the test vectors of docs/protocol.md section 19, made from that page by PyPI's `blake3`, `cryptography` and
`zstandard`. `--corpus FOLDER` writes seeds for the fuzzer of manifests instead."""

import struct
import sys
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from zstandard import ZstdCompressor

from vectors import REPLY, REQUEST, message, varint

SEED = bytes(range(32))
PLAIN = b"hello, world\n"
DULL = b"Shardkeep " * 60


def signed(manifest):
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(b"shardkeep v1 patch manifest\0" + manifest)
    return public, b"SKPS\x01" + public + signature + manifest


def manifest(files, chunks, release=b"1.2.3", sequence=7, version=1_002_003, sizes=(64, 256, 1024)):
    out = b"SKPM\x01" + struct.pack("<QIIII", sequence, version, *sizes)
    out += bytes([len(release)]) + release
    out += struct.pack("<I", len(chunks))
    for content, stored in chunks:
        out += blake3(content).digest() + struct.pack("<II", len(content), len(stored))
    out += struct.pack("<I", len(files))
    for path, flags, references in files:
        out += struct.pack("<BH", flags, len(path)) + path + varint(len(references)) + b"".join(map(varint, references))
    return out


def sample():
    """The manifest, and the stored forms of its two chunks."""
    raw = b"\0" + PLAIN
    compressed = b"\1" + ZstdCompressor(level=3).compress(DULL)
    chunks = [(DULL, compressed), (PLAIN, raw)]
    # 0: the first chunk not needed before; n: number n - 1.
    files = [(b"bin/game", 1, [0, 0]), (b"empty", 0, []), (b"readme.txt", 0, [2, 1])]
    return manifest(files, chunks), raw, compressed


def vectors():
    plain, raw, compressed = sample()
    public, published = signed(plain)
    identity = blake3(published).digest()
    yield "chunk id", blake3(PLAIN).digest()
    yield "stored", raw
    yield "chunk id of 600", blake3(DULL).digest()
    yield "stored of 600", compressed
    yield "seed", SEED
    yield "public key", public
    yield "manifest", plain
    yield "signed manifest", published
    yield "preface", b"SKEP" + struct.pack("<HBB", 1, 3, 0) + bytes.fromhex("ef260e9a")
    yield "GetRelease", message(REQUEST, 0x0180, 1)
    yield "PublishedRelease", message(REPLY, 0x0180, 1, identity, len(published), "1.2.3", 7, 1_002_003)
    yield "GetPiece", message(REQUEST, 0x0181, 2, blake3(PLAIN).digest(), 8, 61_440)
    yield "Piece", message(REPLY, 0x0181, 2, len(raw), raw[8:])


def corpus(folder):
    plain, raw, compressed = sample()
    _, published = signed(plain)
    path = plain.index(b"bin/game")

    def bent(at, new):
        return plain[:at] + new + plain[at + len(new):]

    seeds = {
        "manifest": plain,
        "signed": published,
        "signed_altered": published[:-1] + bytes([published[-1] ^ 1]),
        "signed_version": b"SKPS\x02" + published[5:],
        "stored_raw": raw,
        "stored_zstd": compressed,
        "stored_bomb": b"\1" + ZstdCompressor(level=19).compress(bytes(8 << 20)),
        "stored_unknown": b"\2" + PLAIN,
        "path_dots": bent(path, b"../../sh"),
        "path_absolute": bent(path, b"/bin/gam"),
        "path_device": bent(path, b"bin/con."),
        "path_backslash": bent(path, b"bin\\game"),
        "path_reserved": manifest([(b".shardkeep/state", 0, [])], []),
        "path_not_text": bent(path, b"\xff"),
        "paths_unsorted": manifest([(b"b", 0, []), (b"a", 0, [])], []),
        "paths_twice": manifest([(b"A", 0, []), (b"a", 0, [])], []),
        "file_and_folder": manifest([(b"a", 0, []), (b"a/b", 0, [])], []),
        "flags_reserved": bent(path - 3, b"\x02"),
        "endless_chunks": plain[:35] + b"\xff\xff\xff\xff" + plain[39:],
        "endless_references": manifest([], [])[:-4] + struct.pack("<IBH", 1, 0, 1) + b"a" + varint(2**63),
        "reference_ahead": manifest([(b"a", 0, [2, 0])], [(PLAIN, raw), (DULL, compressed)]),
        "chunk_unused": manifest([(b"a", 0, [0])], [(PLAIN, raw), (DULL, compressed)]),
        "chunk_twice": manifest([(b"a", 0, [0, 0])], [(PLAIN, raw), (PLAIN, raw)]),
        "chunk_of_nothing": manifest([(b"a", 0, [0])], [(b"", b"\0")]),
        "chunking_impossible": manifest([], [], sizes=(0, 0, 0)),
        "trailing": plain + b"\0",
        "name_of_odd_letters": manifest([], [], release=b"1/2"),
        "empty_release": manifest([], []),
    }
    for name, seed in seeds.items():
        (Path(folder) / name).write_bytes(seed)


def main():
    if sys.argv[1:2] == ["--corpus"]:
        return corpus(sys.argv[2])
    for name, value in vectors():
        text = value.hex()
        lines = [text[at:at + 88] for at in range(0, len(text), 88)]
        for number, line in enumerate(lines):
            print(f"{name if number == 0 else '':<18}{line}")


if __name__ == "__main__":
    main()
