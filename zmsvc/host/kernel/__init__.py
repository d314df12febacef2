"""The interfaces of Linux: processes, control groups, descriptors. `linux` alone uses ctypes."""
