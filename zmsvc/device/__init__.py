"""The forwarder of a context's messages: libzmq's own proxy in a process of its own, and nothing else."""
