#!/usr/bin/env python
"""A plugin that speaks HashiCorp's go-plugin without its code: the service of ../proto/peer.proto, by grpcio.

It has no broker, as most plugins that are not written in Go. A variable PEER_ADDRESS of `tcp` has it listen on a port.
"""

import base64
import datetime
import json
import os
import queue
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

CRATES = Path(__file__).resolve().parents[2]
DESCRIPTIONS = [
    CRATES / "tower-plugins-interop/src/generated/peer.binpb",
    CRATES / "tower-plugins-proto/src/go_plugin/generated/plugin.binpb",
]


def messages():
    pool = descriptor_pool.DescriptorPool()
    for path in DESCRIPTIONS:
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
            pool.AddSerializedFile(file.SerializeToString())
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


MESSAGE = messages()


def peer(name):
    return MESSAGE(f"peer.v1.{name}")


def pattern(length):
    block = bytearray()
    # The letters of a line begin anew after 26.
    for line in range(26):
        block += bytes(ord("a") + (line * 7 + column) % 26 for column in range(63)) + b"\n"
    return bytes(block * (length // len(block) + 1))[:length]


class Printed:
    """What was printed, for whoever streams it."""

    def __init__(self):
        self.chunks = queue.Queue(64)

    def write(self, channel, data):
        for start in range(0, len(data), 1024):
            self.chunks.put((channel, data[start : start + 1024]))

    def stream(self, _request, context):
        data = MESSAGE("plugin.StdioData")
        context.add_callback(lambda: self.chunks.put(None))
        while (chunk := self.chunks.get()) is not None:
            yield data(channel=chunk[0], data=chunk[1])


class Peer:
    def __init__(self, version):
        self.version = version
        self.printed = Printed()

    def double(self, request, _context):
        return peer("Number")(value=2 * request.value)

    def doubles(self, requests, _context):
        for request in requests:
            yield peer("Number")(value=2 * request.value)

    def echo(self, request, _context):
        return request

    def fill(self, request, _context):
        return peer("Payload")(data=pattern(request.value))

    def write(self, request, _context):
        data = pattern(request.length)
        if request.sink in (0, 1):
            self.printed.write(1 + request.sink, data)
        else:
            with os.fdopen(os.dup(request.sink - 1), "wb") as file:
                file.write(data)
        return peer("Empty")()

    def log(self, request, _context):
        for level in ["trace", "debug", "info", "warn", "error"]:
            line = {"@level": level, "@message": request.value, "@module": "peer", "number": 7}
            print(json.dumps(line), file=sys.stderr, flush=True)
        return peer("Empty")()

    def describe(self, _request, _context):
        return peer("Description")(
            version=self.version,
            pid=os.getpid(),
            directory=os.getcwd(),
            arguments=sys.argv,
            environment=[f"{name}={value}" for name, value in os.environ.items()],
            stdin=os.readlink("/proc/self/fd/0"),
        )

    def exit(self, request, _context):
        os._exit(request.value)

    def wait(self, request, _context):
        time.sleep(request.value / 1000)
        return peer("Empty")()

    def handler(self):
        def unary(method, request):
            return grpc.unary_unary_rpc_method_handler(
                method, peer(request).FromString, lambda answer: answer.SerializeToString()
            )

        number = peer("Number")
        stream = grpc.stream_stream_rpc_method_handler(
            self.doubles, number.FromString, number.SerializeToString
        )
        methods = {
            "Double": unary(self.double, "Number"),
            "Doubles": stream,
            "Echo": unary(self.echo, "Payload"),
            "Fill": unary(self.fill, "Number"),
            "Write": unary(self.write, "WriteRequest"),
            "Log": unary(self.log, "Text"),
            "Describe": unary(self.describe, "Empty"),
            "Exit": unary(self.exit, "Number"),
            "Wait": unary(self.wait, "Number"),
        }
        return grpc.method_handlers_generic_handler("peer.v1.Peer", methods)

    def own_handlers(self, ended):
        """The services that go-plugin itself has."""
        empty = MESSAGE("plugin.Empty")

        def shutdown(_request, _context):
            ended.set()
            return empty()

        data = MESSAGE("plugin.StdioData")
        controller = grpc.unary_unary_rpc_method_handler(shutdown, empty.FromString, empty.SerializeToString)
        stdio = grpc.unary_stream_rpc_method_handler(
            self.printed.stream, empty_pb2.Empty.FromString, data.SerializeToString
        )
        return (
            grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": controller}),
            grpc.method_handlers_generic_handler("plugin.GRPCStdio", {"StreamStdio": stdio}),
        )


def certificate():
    """One of its own, as what go-plugin makes, but P-256: the key and the certificate as PEM, and the latter as DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=30))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(pem), made.public_bytes(serialization.Encoding.DER)


def listen(server):
    """Has the server listen; its network and address, and the certificate for the handshake."""
    credentials, sent = None, ""
    if host := os.environ.get("PLUGIN_CLIENT_CERT"):
        key, own, der = certificate()
        credentials = grpc.ssl_server_credentials([(key, own)], host.encode(), True)
        sent = base64.b64encode(der).decode().rstrip("=")

    def bind(address):
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)

    if os.environ.get("PEER_ADDRESS") == "tcp":
        return "tcp", f"127.0.0.1:{bind('127.0.0.1:0')}", sent
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
    path = os.path.join(folder, f"plugin{os.getpid()}")
    bind(f"unix:{path}")
    return "unix", path, sent


def main():
    if os.environ.get("TOWER_PLUGINS_COOKIE") != "tower-plugins-1":
        sys.exit("This is a plugin: it is started by its host.")
    versions = os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "").split(",")
    version = 1
    assert str(version) in versions, f"speaks 1, not {versions}"

    ended = threading.Event()
    serving = Peer(version)
    checks = health.HealthServicer()
    checks.set("plugin", health_pb2.HealthCheckResponse.SERVING)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(16), options=unlimited)
    server.add_generic_rpc_handlers((serving.handler(), *serving.own_handlers(ended)))
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    network, address, sent = listen(server)
    server.start()
    print(f"1|{version}|{network}|{address}|grpc|{sent}", flush=True)
    ended.wait()
    server.stop(1).wait()
    if network == "unix" and os.path.exists(address):
        os.unlink(address)


if __name__ == "__main__":
    main()
