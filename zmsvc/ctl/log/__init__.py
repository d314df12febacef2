"""The log of a context, in the journal or in a file: what `logs` and `status` read."""
