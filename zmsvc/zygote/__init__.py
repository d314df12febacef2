"""The process out of which tasks are forked."""
