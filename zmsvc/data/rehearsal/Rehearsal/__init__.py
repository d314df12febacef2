"""The service whose start the zygote rehearses."""
