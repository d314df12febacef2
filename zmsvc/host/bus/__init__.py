"""Sockets of ZeroMQ: their options, endpoints, keys, and the users that may connect."""
