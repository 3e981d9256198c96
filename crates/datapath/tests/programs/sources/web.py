"""Serves the files of the current directory with asyncio, and keeps what is sent to /upload in uploads/.

python3 web.py PORT
"""

import asyncio
import sys


async def upload(reader, length):
    with open("uploads/one", "wb") as file:
        while length > 0:
            piece = await reader.read(min(length, 100_000))
            if not piece:
                raise EOFError("the body is too short")
            file.write(piece)
            length -= len(piece)


async def answer_one(reader, writer):
    """Answers one request; false when there is none any more."""
    request = await reader.readline()
    if not request:
        return False
    length = 0
    while (header := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    path = request.split()[1].decode().partition("?")[0]
    if path == "/upload":
        await upload(reader, length)
        body = b"kept"
    else:
        with open("." + path, "rb") as file:
            body = file.read()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    await writer.drain()
    return True


async def serve(reader, writer):
    try:
        while await answer_one(reader, writer):
            pass
    except ConnectionError:
        pass  # the client went away in the middle
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
