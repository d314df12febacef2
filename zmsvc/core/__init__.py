"""The decision maker. Pure: no clock, file, socket, logging or zmq. Every function knows only its
arguments.
"""
