"""Bytes of the Shardkeep client protocol, written from docs/protocol.md alone: encoding (2), preface (4), records and
sealing (5), messages (6), and as much of protobuf as the payloads need."""

import hashlib
import hmac
import os
import struct
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

import lanes

REQUEST, REPLY, EVENT, STATE = range(4)
LOGIN, GATEWAY = 1, 2
SUITES = {1: AESGCM, 2: ChaCha20Poly1305}
PING_AFTER = 10
DATAGRAM_SPAN, DATAGRAM_WINDOW = 1 << 20, 64

ERROR, ACK, KEY_UPDATE, PING, PONG = 1, 2, 3, 4, 5

ERROR_CODES = dict(enumerate((
    "UNSPECIFIED MALFORMED UNSUPPORTED_VERSION OUT_OF_PHASE TOO_LARGE TOO_FAST DENIED BANNED TICKET_INVALID DISPLACED "
    "KICKED UNAVAILABLE NOT_FOUND REFUSED TOO_SLOW DRAINING PLAY_TIME_OVER ACTION_CONFLICT LOGGED_OUT THROTTLED "
    "UPDATE_REQUIRED"
).split())) | {35: "SECOND_FACTOR", 36: "ALREADY_LOGGED_IN", 37: "WRONG_CODE", 38: "MAINTENANCE", 39: "TWO_CODES"}


class ProtocolError(Exception):
    """The server does not follow the protocol."""


class Refused(Exception):
    """The server said Error."""

    def __init__(self, payload):
        error = decode(payload)
        code = first(error, 1, 0)
        self.code = ERROR_CODES.get(code, str(code))
        self.retry_after = first(error, 3, 0) / 1000
        super().__init__(f"{self.code}: {first(error, 2, b'').decode()}")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def extract(salt, ikm):
    return mac(salt, ikm)


def expand(prk, info, length=32):
    return mac(prk, info.encode(), b"\x01")[:length]


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def read_varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtocolError("a varint that does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def encode(*fields):
    """A protobuf message whose fields 1, 2, … have these values; None and empty ones are left out."""
    out = b""
    for number, value in enumerate(fields, 1):
        if isinstance(value, list):
            value = b"".join(map(varint, value))
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value if value else b""
        elif value:
            out += varint(number << 3) + varint(value)
    return out


def decode(data):
    """Field number → list of its values: numbers, or bytes."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        elif tag & 7 == 2:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ProtocolError(f"wire type {tag & 7} is not used by this protocol")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def first(fields, number, default=None):
    return fields.get(number, [default])[0]


class Message:
    def __init__(self, kind, opcode, payload, request=None, raw=b""):
        self.kind, self.opcode, self.payload, self.request, self.raw = kind, opcode, payload, request, raw

    def encoded(self, klass=0, key=0):
        out = bytes([self.kind]) + struct.pack("<H", self.opcode)
        if self.kind in (REQUEST, REPLY):
            out += varint(self.request)
        elif self.kind == STATE:
            out += bytes([klass]) + varint(key)
        return out + varint(len(self.payload)) + self.payload


def split(record):
    """The messages of a record."""
    at = 0
    while at < len(record):
        start, flags = at, record[at]
        if flags > 3 or len(record) < at + 3:
            raise ProtocolError("a bad message header")
        (opcode,) = struct.unpack_from("<H", record, at + 1)
        at, request = at + 3, None
        if flags in (REQUEST, REPLY):
            request, at = read_varint(record, at)
        elif flags == STATE:
            _, at = read_varint(record, at + 1)
        size, at = read_varint(record, at)
        if at + size > len(record):
            raise ProtocolError("a message spans records")
        at += size
        yield Message(flags, opcode, record[at - size : at], request, record[start:at])


class Direction:
    """Key and record counter of one direction."""

    def __init__(self, suite, key):
        self.suite, self.key, self.counter = suite, key, 0
        self.cipher = SUITES[suite](key)

    def nonce(self):
        self.counter += 1
        return bytes(4) + struct.pack("<Q", self.counter - 1)

    def updated(self):
        return Direction(self.suite, expand(self.key, "shardkeep v1 key update"))


class Datagrams:
    """The server's datagrams (18): a key for every 2^20 sequences, and each opens once."""

    def __init__(self, suite, key):
        self.number, self.direction, self.highest, self.seen = 0, Direction(suite, key), -1, set()

    def open(self, datagram):
        """The messages, or None for what is not new."""
        (sequence,) = struct.unpack_from("<Q", datagram)
        number, body = sequence // DATAGRAM_SPAN, datagram[8:]
        if number < self.number or sequence <= self.highest - DATAGRAM_WINDOW or sequence in self.seen:
            return None
        direction = self.direction
        for _ in range(self.number, number):
            direction = direction.updated()
        nonce = bytes(4) + struct.pack("<Q", sequence)
        messages = direction.cipher.decrypt(nonce, body, struct.pack("<H", len(body)))
        self.number, self.direction, self.highest = number, direction, max(self.highest, sequence)
        self.seen = {old for old in self.seen if old > self.highest - DATAGRAM_WINDOW} | {sequence}
        return messages


class Connection:
    """A lane that carries records."""

    def __init__(self, address, service, deployment, lane="tcp", ca=None):
        preface = b"SKEP" + struct.pack("<HBB", 1, service, 0) + sha256(deployment.encode())[:4]
        self.socket = lanes.connect(lane, address, ca)
        self.socket.sendall(preface)
        # What transcripts begin with.
        self.preface = preface + self.socket.exporter
        self.sending = self.receiving = self.datagrams = None
        self.datagrams_opened = 0
        self.inbox, self.messages, self.said = b"", [], time.monotonic()

    def seal(self, suite, client_key, server_key):
        if self.messages:
            raise ProtocolError("plain messages after the last plain one")
        self.sending, self.receiving = Direction(suite, client_key), Direction(suite, server_key)

    def send(self, message, klass=0, key=0):
        raw = message.encoded(klass, key)
        body = raw
        if self.sending:
            length = struct.pack("<H", len(raw) + 16)
            body = self.sending.cipher.encrypt(self.sending.nonce(), raw, length)
        self.socket.sendall(struct.pack("<H", len(body)) + body)
        self.said = time.monotonic()
        return raw

    def update_key(self):
        self.send(Message(EVENT, KEY_UPDATE, b""))
        self.sending = self.sending.updated()

    def receive(self, deadline):
        """The next message, or None when the deadline (a time.monotonic()) has passed. Liveness is handled here."""
        while True:
            while not self.messages:
                self.messages = self.open_datagrams()
                record = None if self.messages else self.read_record(deadline)
                if record:
                    self.messages = list(split(self.open(record)))
                elif record is None and not self.messages:
                    return None
            message = self.messages.pop(0)
            if message.kind == EVENT and message.opcode == PING:
                self.send(Message(EVENT, PONG, message.payload))
            elif message.kind == EVENT and message.opcode == PONG:
                pass
            elif message.kind == EVENT and message.opcode == KEY_UPDATE:
                self.receiving = self.receiving.updated()
            elif message.kind == EVENT and message.opcode == ERROR:
                raise Refused(message.payload)
            else:
                return message

    def open(self, record):
        if not self.receiving:
            return record
        try:
            return self.receiving.cipher.decrypt(self.receiving.nonce(), record, struct.pack("<H", len(record)))
        except InvalidTag as error:
            raise ProtocolError("a sealed record does not open") from error

    def open_datagrams(self):
        messages = []
        while self.datagrams and self.socket.datagrams:
            opened = self.datagrams.open(self.socket.datagrams.popleft())
            if opened:
                messages += split(opened)
                self.datagrams_opened += 1
        return messages

    def read_record(self, deadline):
        """None when it is too late; nothing when a datagram came before."""
        while True:
            if self.datagrams and self.socket.datagrams:
                return b""
            if len(self.inbox) >= 2:
                (length,) = struct.unpack_from("<H", self.inbox)
                if length == 0:
                    raise ProtocolError("an empty record")
                if len(self.inbox) >= 2 + length:
                    record, self.inbox = self.inbox[2 : 2 + length], self.inbox[2 + length :]
                    return record
            now, ping_at = time.monotonic(), self.said + PING_AFTER
            if now >= deadline:
                return None
            if self.receiving and now >= ping_at:
                self.send(Message(EVENT, PING, encode(1)))
            self.socket.settimeout(max(min(deadline, ping_at) - now, 0.01))
            try:
                data = self.socket.recv(65_536)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("the server closed the connection")
            self.inbox += data

    def close(self):
        self.socket.close()


def random(size=32):
    return os.urandom(size)
