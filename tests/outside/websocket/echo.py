# A WebSocket server that sends back what comes, closes when it is told to, and takes nobody at /refused. Says its port first.
import asyncio
import contextlib
import http

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def answer(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")


async def echo(connection):
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            if message == "close":
                await connection.close(4001, "as asked")
            else:
                await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, process_request=answer, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
