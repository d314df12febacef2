"""`zmsvcctl -H`: the same command on several hosts at once, over ssh. zmsvcctl imports this only with -H."""
