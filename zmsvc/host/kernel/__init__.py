"""Interfaces of Linux: processes, cgroups, descriptors. In this room only `linux` uses ctypes."""
