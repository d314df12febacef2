"""The text of programs that attack with a descriptor whose close blocks the process that closes it."""

LINGERING = '''
import array, os, signal, socket, struct, sys, threading, time

peers = []


def lingering(seconds):
    """Return a socket whose close takes so long: its peer never reads what it has been sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        peers.append(server.accept()[0])
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return ours


'''
"""The beginning of such a program: its imports, and `lingering`."""
