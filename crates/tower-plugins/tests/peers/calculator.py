"""The service of examples/proto/calculator.proto, and a client of it, by grpcio.

    calculator.py serve DESCRIPTION ADDRESS [CERT KEY [CA]]
                                                prints the port that it listens on; over TLS with a certificate and its
                                                key, for clients that CA has certified if there is one; it is as well as lines of
                                                its input say
    calculator.py call DESCRIPTION TARGET       calls it in each shape; the exit code is 0 if all is right

DESCRIPTION is examples/generated/calculator.binpb, which takes the place of generated code.
"""

import sys
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "calculator.v1.Calculator"


class Schema:
    def __init__(self, path):
        with open(path, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.AddSerializedFile(file.SerializeToString())

        def message(name):
            found = pool.FindMessageTypeByName(f"calculator.v1.{name}")
            return message_factory.GetMessageClass(found)

        self.Divide = message("DivideRequest")
        self.Number = message("Number")

    def number(self, value):
        return self.Number(value=value)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def serve(schema, address, cert=None, key=None, clients=None):
    def divide(request, context):
        if request.divisor == 0:
            context.set_trailing_metadata([("x-why", "because")])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cannot divide by 0 %")
        return schema.number(request.dividend / request.divisor)

    def add(requests, _context):
        return schema.number(sum(request.value for request in requests))

    def count(request, _context):
        for value in range(1, int(request.value) + 1):
            yield schema.number(value)

    def running_sum(requests, context):
        total = 0
        for request in requests:
            if request.value < 0:
                context.abort(grpc.StatusCode.OUT_OF_RANGE, "below zero")
            total += request.value
            yield schema.number(total)

    def handler(make, behaviour, request):
        return make(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=schema.Number.SerializeToString,
        )

    methods = {
        "Divide": handler(grpc.unary_unary_rpc_method_handler, divide, schema.Divide),
        "Sum": handler(grpc.stream_unary_rpc_method_handler, add, schema.Number),
        "Count": handler(grpc.unary_stream_rpc_method_handler, count, schema.Number),
        "RunningSum": handler(grpc.stream_stream_rpc_method_handler, running_sum, schema.Number),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    how = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(how, server)
    if cert is None:
        port = server.add_insecure_port(address)
    else:
        credentials = grpc.ssl_server_credentials(
            [(read(key), read(cert))],
            root_certificates=clients and read(clients),
            require_client_auth=clients is not None,
        )
        port = server.add_secure_port(address, credentials)
    server.start()
    print(port, flush=True)
    # It ends with the program that started it.
    for line in sys.stdin:
        how.set(SERVICE, health_pb2.HealthCheckResponse.ServingStatus.Value(line.strip()))
    server.stop(None)


def call(schema, target):
    channel = grpc.insecure_channel(target)

    def method(make, name, request):
        return make(
            f"/{SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=schema.Number.FromString,
        )

    divide = method(channel.unary_unary, "Divide", schema.Divide)
    add = method(channel.stream_unary, "Sum", schema.Number)
    count = method(channel.unary_stream, "Count", schema.Number)
    running_sum = method(channel.stream_stream, "RunningSum", schema.Number)

    assert divide(schema.Divide(dividend=1, divisor=8), timeout=20).value == 0.125
    numbers = [schema.number(value) for value in range(1, 101)]
    assert add(iter(numbers), timeout=20).value == 5050
    counted = [number.value for number in count(schema.number(1000), timeout=20)]
    assert counted == list(range(1, 1001)), counted
    sums = [number.value for number in running_sum(iter(numbers[:4]), timeout=20)]
    assert sums == [1, 3, 6, 10], sums

    try:
        divide(schema.Divide(dividend=1, divisor=0), timeout=20)
        raise AssertionError("a division by zero")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert error.details() == "cannot divide by 0 %", error
        assert ("x-why", "because") in error.trailing_metadata(), error
    answers = running_sum(iter([schema.number(1), schema.number(-1)]), timeout=20)
    assert next(answers).value == 1
    try:
        next(answers)
        raise AssertionError("a number below zero")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.OUT_OF_RANGE, error
    endless = count(schema.number(1e15), timeout=20)
    assert next(endless).value == 1
    endless.cancel()


if __name__ == "__main__":
    _, command, description, *rest = sys.argv
    {"serve": serve, "call": call}[command](Schema(description), *rest)
