"""`zmsvcctl create`: make services and add them to a context file."""
