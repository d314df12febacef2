"""The device: the process that forwards every message of a context, by libzmq's own proxy. It knows no tasks,
and reads messages only to count the orders that no supervisor receives.
"""
