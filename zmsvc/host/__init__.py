"""The machine: thin adapters to kernel, files, sockets and journal. No policy lives here; it may import
core.
"""
