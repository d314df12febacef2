"""Adapters to the machine: kernel, files, sockets, journal. They decide nothing, and import only core."""
