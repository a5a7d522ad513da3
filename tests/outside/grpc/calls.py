# The seven shapes of a gRPC call, and some sizes. `calls.py serve` is the server and says its port first;
# `calls.py call ADDRESS` makes every call once and says what the client saw, as JSON. Bytes are passed as they are, so
# that no message has to be compiled.
import json
import sys
import threading
import time
from concurrent import futures

import grpc

CANCELLED = threading.Event()


def echo(request, context):
    context.send_initial_metadata((("x-began", "1"),))
    context.set_trailing_metadata((("x-size", str(len(request))), ("x-key-bin", b"\0\xff")))
    return request


def repeat(request, context):
    for number in range(50):
        yield b"%d:%s" % (number, request)
    context.set_trailing_metadata((("x-count", "50"),))


def gather(requests, context):
    sizes = [len(request) for request in requests]
    return json.dumps(sizes).encode()


def converse(requests, context):
    for request in requests:
        yield request.upper()


def abort(request, context):
    yield b"one"
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: \u00e4 %")


def refuse(request, context):
    context.set_trailing_metadata((("x-why", "at once"),))
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")


def wait(request, context):
    context.add_callback(CANCELLED.set)
    CANCELLED.wait(60)
    return b"too late"


def was_cancelled(request, context):
    # What the deadline of a client does to its call at the server.
    return b"yes" if CANCELLED.wait(20) else b"no"


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    handlers = {
        "Echo": unary(echo),
        "Repeat": streaming(repeat),
        "Gather": grpc.stream_unary_rpc_method_handler(gather),
        "Converse": grpc.stream_stream_rpc_method_handler(converse),
        "Abort": streaming(abort),
        "Refuse": unary(refuse),
        "Wait": unary(wait),
        "WasCancelled": unary(was_cancelled),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trimtab.Calls", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def seen(call, messages):
    """What a client can tell of a call that has ended."""
    def told(metadata):
        # The balancer says that it was there, as it has to; nothing else may differ.
        return sorted([key, repr(value)] for key, value in metadata or () if key not in ("via", "date"))
    return {
        "messages": [[len(message), hash_of(message)] for message in messages],
        "began": told(call.initial_metadata()),
        "code": call.code().name,
        "details": call.details(),
        "ended": told(call.trailing_metadata()),
    }


def hash_of(message):
    import hashlib
    return hashlib.sha256(message).hexdigest()[:16]


def one(make):
    """A call with one answer."""
    try:
        message, call = make()
        return seen(call, [message])
    except grpc.RpcError as error:
        return seen(error, [])


def many(call):
    """A call with a stream of answers."""
    messages = []
    try:
        for message in call:
            messages.append(message)
    except grpc.RpcError:
        pass
    return seen(call, messages)


def paced():
    for word in (b"how", b"are", b"you"):
        time.sleep(0.05)
        yield word


def calls(address):
    channel = grpc.insecure_channel(address)
    method = "/trimtab.Calls/"
    unary = lambda name, data, **more: one(lambda: channel.unary_unary(method + name).with_call(data, **more))
    return {
        "unary, small": unary("Echo", b"hello"),
        "unary, empty": unary("Echo", b""),
        "unary, 100 KB": unary("Echo", b"x" * 100_000),
        "unary, 3 MB": unary("Echo", bytes(range(256)) * 12_000),
        "stream from the server": many(channel.unary_stream(method + "Repeat")(b"again")),
        "stream from the client": one(lambda: channel.stream_unary(method + "Gather").with_call(
            iter([b"x" * size for size in range(0, 50_000, 1000)]))),
        "streams both ways": many(channel.stream_stream(method + "Converse")(paced())),
        "abort with trailers": many(channel.unary_stream(method + "Abort")(b"")),
        "abort at once": unary("Refuse", b""),
        "unknown method": unary("Nobody", b""),
        "deadline": unary("Wait", b"", timeout=0.3),
        "cancelled at the server": unary("WasCancelled", b""),
    }


if sys.argv[1] == "serve":
    serve()
else:
    print(json.dumps(calls(sys.argv[2]), indent=1, sort_keys=True))
