"""The device: the process that forwards every message of a context. It runs libzmq's own proxy and knows
no message, task or policy.
"""
