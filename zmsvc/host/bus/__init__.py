"""ZeroMQ sockets: their options, endpoints, keys, and the users that may connect."""
