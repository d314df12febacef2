"""The EchoAction service: the smallest that does something."""
