"""Finding a server (section 3): SRV, then A, asked of one name server over UDP. RFC 1035 and RFC 2782."""

import random
import socket
import struct

A, SRV = 1, 33


def find(name_server, name, timeout=2, attempts=3):
    """Addresses (host, port) in the order in which to try them."""
    records = ask(name_server, name, SRV, timeout, attempts)
    targets = [record for record in records if record[1] == SRV]
    addresses = {record[0]: record[2] for record in records if record[1] == A}
    ordered = []
    for _, _, (priority, weight, port, target) in targets:
        # Lower priorities first; within one, a heavier target is more often first.
        ordered.append((priority, -random.random() ** (1 / weight) if weight else 0, port, target))
    found = []
    for _, _, port, target in sorted(ordered):
        if target not in addresses:
            answers = ask(name_server, target, A, timeout, attempts)
            addresses.update({record[0]: record[2] for record in answers if record[1] == A})
        if target in addresses:
            found.append((addresses[target], port))
    return found


def ask(name_server, name, kind, timeout, attempts):
    number = random.getrandbits(16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout)
        udp.connect(name_server)
        for _ in range(attempts):
            udp.send(query)
            try:
                answer = udp.recv(4_096)
            except (TimeoutError, ConnectionRefusedError):
                continue
            if answer[:2] == query[:2]:
                return parse(answer)
    raise ConnectionError(f"the name server {name_server} does not answer")


def parse(answer):
    """(name, type, value) of every answer and additional record."""
    _, flags, questions, *counts = struct.unpack_from(">HHHHHH", answer)
    if flags & 0xF not in (0, 3):
        raise ConnectionError(f"the name server answers with code {flags & 0xF}")
    at, records = 12, []
    for _ in range(questions):
        _, at = read_name(answer, at)
        at += 4
    for _ in range(sum(counts)):
        name, at = read_name(answer, at)
        kind, _, _, size = struct.unpack_from(">HHIH", answer, at)
        at += 10
        if kind == A:
            records.append((name, A, socket.inet_ntoa(answer[at : at + 4])))
        elif kind == SRV:
            priority, weight, port = struct.unpack_from(">HHH", answer, at)
            records.append((name, SRV, (priority, weight, port, read_name(answer, at + 6)[0])))
        at += size
    return records


def read_name(data, at):
    labels, end, jumps = [], None, 0
    while data[at]:
        if data[at] >= 0xC0:
            end, jumps = end or at + 2, jumps + 1
            if jumps > 16:
                raise ConnectionError("a name that points at itself")
            at = struct.unpack_from(">H", data, at)[0] & 0x3FFF
        else:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
    return ".".join(labels), end or at + 1
