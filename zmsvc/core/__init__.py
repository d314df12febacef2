"""The decision maker. Pure: no clock, no file, no socket, no logging, no zmq; everything it knows is in
its arguments.
"""
