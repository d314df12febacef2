"""The Stand service: first of the four of the state machine."""
