"""The process that watches the topics on which Commands are expected to publish."""
