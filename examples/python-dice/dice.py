#!/usr/bin/env python3
"""A backend in Python: the same dice table as examples/dice, as opcode 0x8100.

It registers with a registry, serves the Link protocol to every gateway that dials it, answers rolls and publishes
each result to everybody at the table. The gRPC code is generated from proto/ when the program starts.

    python dice.py --tls ../../var/tls --registry 127.0.0.1:7001
"""

import argparse
import asyncio
import os
import pathlib
import random
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"

ROLL, ROLLED = 0x8100, 0x8101
REQUEST, REPLY, EVENT = 0, 1, 2
KIND = 65
JOINED = 1


def generated():
    """Modules of registry.proto and link.proto."""
    folder = tempfile.mkdtemp(prefix="shardkeep-dice-")
    names = ["common", "registry", "link"]
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + [str(PROTO / f"{name}.proto") for name in names]) != 0:
        sys.exit("cannot generate code from proto/")
    sys.path.insert(0, folder)
    import link_pb2, link_pb2_grpc, registry_pb2, registry_pb2_grpc, common_pb2

    return common_pb2, registry_pb2, registry_pb2_grpc, link_pb2, link_pb2_grpc


common, registry, registry_rpc, link, link_rpc = generated()

TABLE = dict(kind=KIND << 8, namespace=0, number=1)


class Gateway:
    """One link: numbered batches out, in order; nothing is kept for a resend, so every link starts anew."""

    def __init__(self):
        self.out = asyncio.Queue(maxsize=1024)
        self.sent = 0
        self.received = 0
        self.watching = False

    def say(self, *items):
        self.sent += 1
        batch = link.BackendBatch(sequence=self.sent, ack=self.received, items=items)
        try:
            self.out.put_nowait(link.BackendFrame(batch=batch))
        except asyncio.QueueFull:
            # A gateway that does not read loses its link, not the others theirs.
            raise ConnectionAbortedError("gateway reads too slowly") from None


class Dice(link_rpc.LinkServicer):
    def __init__(self, identity):
        self.identity = identity
        self.gateways = set()

    async def Open(self, frames, context):
        gateway = Gateway()
        hello = await anext(aiter(frames))
        if hello.WhichOneof("frame") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first frame must be hello")
        route = link.Route(first_opcode=ROLL, last_opcode=ROLL, max_payload=1, rate=5, burst=10)
        yield link.BackendFrame(
            hello=link.BackendHello(backend=self.identity, kind=KIND, routes=[route], auto_bind=True, resumed=False)
        )
        self.gateways.add(gateway)
        reader = asyncio.create_task(self.read(frames, gateway))
        try:
            while True:
                next_frame = asyncio.create_task(gateway.out.get())
                await asyncio.wait([reader, next_frame], return_when=asyncio.FIRST_COMPLETED)
                if not next_frame.done():
                    next_frame.cancel()
                    break
                yield next_frame.result()
        finally:
            self.gateways.discard(gateway)
            reader.cancel()

    async def read(self, frames, gateway):
        async for frame in frames:
            if frame.WhichOneof("frame") != "batch":
                continue
            gateway.received = frame.batch.sequence
            for item in frame.batch.items:
                self.handle(gateway, item)
            gateway.out.put_nowait(link.BackendFrame(ack=gateway.received))

    def handle(self, gateway, item):
        what = item.WhichOneof("item")
        if what == "session" and item.session.kind == JOINED:
            subscribe = link.Subscribe(session=item.session.session, groups=[link.Group(**TABLE)], replace=True)
            gateway.say(link.BackendItem(subscribe=subscribe))
        elif what == "deliver":
            for message in item.deliver.messages:
                self.roll(gateway, item.deliver.session, message)
        elif what == "watch":
            gateway.watching = True
        elif what == "unwatch":
            gateway.watching = False

    def roll(self, gateway, session, message):
        sides = message.payload[0] if message.payload else 0
        if not 2 <= sides <= 100:
            # client.v1.Error with code REFUSED (13) and a text.
            detail = b"sides: one byte, 2 to 100"
            error = bytes([0x08, 13, 0x12, len(detail)]) + detail
            gateway.say(self.to(session, link.ServerMessage(opcode=1, kind=REPLY, request=message.request, payload=error)))
            return
        rolled = random.randint(1, sides)
        reply = link.ServerMessage(opcode=ROLL, kind=REPLY, request=message.request, payload=bytes([rolled]))
        gateway.say(self.to(session, reply))
        event = link.ServerMessage(opcode=ROLLED, kind=EVENT, payload=bytes([sides, rolled]))
        publish = link.Publish(group=link.Group(**TABLE), epoch=1, kind=link.Publish.EVENT, message=event)
        for other in self.gateways:
            if other.watching:
                other.say(link.BackendItem(publish=publish))

    @staticmethod
    def to(session, message):
        return link.BackendItem(send=link.Send(sessions=[session], messages=[message]))


async def keep_registered(stub, instance):
    """Keeps a lease of three seconds and renews it every second. A registry that has restarted gets the whole registration."""
    # Identifies this process: the registry accepts heartbeats under this name only with the same key.
    process_key = os.urandom(16)
    known = False
    while True:
        try:
            if not known:
                await stub.Register(registry.RegisterRequest(instance=instance, lease_ms=3000, key=process_key), timeout=2)
            reply = await stub.Heartbeat(registry.HeartbeatRequest(id=instance.id, state=registry.UP, key=process_key), timeout=2)
            known = reply.known
        except grpc.aio.AioRpcError as error:
            known = False
            print(f"registry: {error.details()}", file=sys.stderr)
        await asyncio.sleep(1)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", type=pathlib.Path, required=True, help="folder with ca.pem, NAME.pem, NAME.key")
    parser.add_argument("--registry", required=True, help="host:port of a registry")
    parser.add_argument("--name", default="python-dice")
    parser.add_argument("--listen", default="127.0.0.1:0")
    args = parser.parse_args()

    ca, cert, key = ((args.tls / name).read_bytes() for name in ("ca.pem", f"{args.name}.pem", f"{args.name}.key"))
    identity = common.InstanceId(kind="backend", name=args.name, incarnation=int(time.time() * 1000))

    server = grpc.aio.server()
    link_rpc.add_LinkServicer_to_server(Dice(identity), server)
    credentials = grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)
    host = args.listen.rsplit(":", 1)[0]
    port = server.add_secure_port(args.listen, credentials)
    await server.start()
    print(f"dice on {host}:{port}", flush=True)

    channel = grpc.aio.secure_channel(
        args.registry,
        grpc.ssl_channel_credentials(ca, key, cert),
        options=[("grpc.ssl_target_name_override", "registry.shardkeep.internal")],
    )
    instance = registry.Instance(
        id=identity, state=registry.UP, grpc_address=f"{host}:{port}", version="python", attributes={"kind": str(KIND)}
    )
    await keep_registered(registry_rpc.RegistryStub(channel), instance)


if __name__ == "__main__":
    asyncio.run(main())
