"""Relays TCP connections, with asyncio or with two threads for each and blocking sockets.

python3 relay.py asyncio|threads PORT HOST PORT
"""

import asyncio
import socket
import sys
import threading


async def one_way(reader, writer):
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        pass  # one went away in the middle


async def relay(client_reader, client_writer):
    reader, writer = await asyncio.open_connection(host, to)
    await asyncio.gather(one_way(client_reader, writer), one_way(reader, client_writer))
    writer.close()
    client_writer.close()


async def by_asyncio():
    server = await asyncio.start_server(relay, "0.0.0.0", port)
    await server.serve_forever()


def one_way_blocking(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except ConnectionError:
        pass
    except OSError as error:
        if error.errno != 107:  # ENOTCONN: one went away in the middle
            raise


def relay_blocking(client):
    server = socket.create_connection((host, to))
    back = threading.Thread(target=one_way_blocking, args=(server, client))
    back.start()
    one_way_blocking(client, server)
    back.join()
    server.close()
    client.close()


def by_threads():
    listener = socket.create_server(("0.0.0.0", port), backlog=128)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=relay_blocking, args=(client,)).start()


way = sys.argv[1]
port, host, to = int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if way == "asyncio":
    asyncio.run(by_asyncio())
else:
    by_threads()
