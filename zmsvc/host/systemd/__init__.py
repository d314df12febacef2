"""Interfaces of systemd: sd_notify and journald, and the log file where there is no journald."""
