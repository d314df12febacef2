"""The interfaces of systemd: sd_notify, journald, and the log file where there is no journald."""
