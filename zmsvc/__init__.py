"""zmsvc: a systemd-integrated service manager for micro-services that talk over ZeroMQ."""

__version__ = "1.1.0.dev0"
