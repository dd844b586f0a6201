"""How bytes reach a server, written from docs/protocol.md, section 18: TCP, a stream of QUIC (PyPI's `aioquic`), and a
WebSocket (PyPI's `websockets`). Each has the few methods of a socket that records need."""

import collections
import select
import socket
import ssl
import time

LANES = ("tcp", "quic", "ws", "wss")
SUBPROTOCOL, ALPN = "shardkeep.v1", "shardkeep/1"
SERVER_NAME = "players.shardkeep.internal"
EXPORTER = b"EXPORTER-shardkeep-v1"


def connect(lane, address, ca=None, timeout=10):
    """`ca`: the authority that the server's certificate must come from; None: the proofs show who answers."""
    return {"tcp": Tcp, "quic": Quic, "ws": WebSocket, "wss": SecureWebSocket}[lane](address, ca, timeout)


class Lane:
    # What transcripts hold after the preface, and datagrams that nobody took yet.
    exporter = b""

    def __init__(self):
        self.datagrams = collections.deque()


class Tcp(Lane):
    def __init__(self, address, _ca, timeout):
        super().__init__()
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sendall, self.recv, self.close = self.socket.sendall, self.socket.recv, self.socket.close
        self.settimeout = self.socket.settimeout


class WebSocket(Lane):
    scheme = "ws"

    def __init__(self, address, ca, timeout):
        from websockets.sync.client import connect as open_socket

        super().__init__()
        context = trust(ca) if self.scheme == "wss" else None
        self.timeout = timeout
        self.socket = open_socket(
            f"{self.scheme}://{address[0]}:{address[1]}/", ssl=context, subprotocols=[SUBPROTOCOL], compression=None,
            server_hostname=SERVER_NAME if context else None, open_timeout=timeout, ping_interval=None, proxy=None,
        )
        if self.socket.subprotocol != SUBPROTOCOL:
            raise ConnectionError("the server does not speak the subprotocol")

    def sendall(self, data):
        # The borders of messages mean nothing: also a record in pieces must do.
        for at in range(0, len(data), 1_000):
            self.socket.send(data[at : at + 1_000])

    def settimeout(self, seconds):
        self.timeout = seconds

    def recv(self, _most):
        from websockets.exceptions import ConnectionClosed

        try:
            message = self.socket.recv(timeout=self.timeout)
        except ConnectionClosed:
            return b""
        if not isinstance(message, bytes):
            raise ConnectionError("a text message")
        return message

    def close(self):
        # Without the closing handshake, as a network does.
        self.socket.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class SecureWebSocket(WebSocket):
    scheme = "wss"


def trust(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(ca)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Quic(Lane):
    """One bidirectional stream, and the datagrams beside it."""

    def __init__(self, address, ca, timeout):
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.connection import QuicConnection

        super().__init__()
        export_secrets()
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[ALPN], server_name=SERVER_NAME, max_datagram_frame_size=1_400,
            verify_mode=ssl.CERT_REQUIRED if ca else ssl.CERT_NONE, cafile=ca,
        )
        self.address, self.timeout = address, timeout
        self.inbox, self.ended, self.ready = b"", False, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self.quic = QuicConnection(configuration=configuration)
        self.quic.connect(address, now=time.monotonic())
        deadline = time.monotonic() + timeout
        while not self.ready:
            self.turn(deadline)
            if self.ended or time.monotonic() > deadline:
                raise ConnectionError("no QUIC connection")
        self.stream = self.quic.get_next_available_stream_id()
        self.exporter = exporter(self.quic.tls.key_schedule)

    def sendall(self, data):
        if self.ended:
            raise ConnectionError("the connection is closed")
        self.quic.send_stream_data(self.stream, data)
        self.transmit()

    def settimeout(self, seconds):
        self.timeout = seconds

    def recv(self, _most):
        deadline = time.monotonic() + self.timeout
        while not self.inbox and not self.ended:
            if self.datagrams or time.monotonic() >= deadline:
                raise TimeoutError
            self.turn(deadline)
        data, self.inbox = self.inbox, b""
        return data

    def transmit(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.socket.send(data)

    def turn(self, deadline):
        """Waits for the network or the connection's own timer, and takes what comes of it."""
        from aioquic.quic import events

        self.transmit()
        timer = self.quic.get_timer()
        until = min(deadline, timer) if timer else deadline
        readable, _, _ = select.select([self.socket], [], [], max(until - time.monotonic(), 0))
        if readable:
            try:
                self.quic.receive_datagram(self.socket.recv(65_536), self.address, now=time.monotonic())
            except (BlockingIOError, ConnectionRefusedError):
                pass
        elif timer and time.monotonic() >= timer:
            self.quic.handle_timer(now=time.monotonic())
        while event := self.quic.next_event():
            if isinstance(event, events.HandshakeCompleted):
                self.ready = True
            elif isinstance(event, events.StreamDataReceived):
                self.inbox += event.data
                self.ended |= event.end_stream
            elif isinstance(event, events.DatagramFrameReceived):
                self.datagrams.append(event.data)
            elif isinstance(event, events.ConnectionTerminated):
                self.ended = True
        self.transmit()

    def close(self):
        self.quic.close()
        self.transmit()
        self.socket.close()


def export_secrets():
    """`aioquic` derives no exporter: this has its key schedule keep the secret that exporters come from (RFC 8446,
    section 7.1), at the one moment when the transcript ends with the server's Finished."""
    from aioquic import tls

    if hasattr(tls.KeySchedule, "exporter_master"):
        return
    derive = tls.KeySchedule.derive_secret

    def derive_and_keep(schedule, label):
        if label == b"c ap traffic":
            schedule.exporter_master = derive(schedule, b"exp master")
        return derive(schedule, label)

    tls.KeySchedule.exporter_master = None
    tls.KeySchedule.derive_secret = derive_and_keep


def exporter(schedule):
    """RFC 8446, section 7.5, with an empty context."""
    from aioquic.tls import hkdf_expand_label
    from cryptography.hazmat.primitives import hashes

    digest = hashes.Hash(schedule.algorithm)
    nothing = digest.finalize()
    size = schedule.algorithm.digest_size
    secret = hkdf_expand_label(schedule.algorithm, schedule.exporter_master, EXPORTER, nothing, size)
    return hkdf_expand_label(schedule.algorithm, secret, b"exporter", nothing, 32)
