"""The process that reads what tasks print, where the context does not log to the journal."""
