"""The zygote: the process that forks tasks."""
