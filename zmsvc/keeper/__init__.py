"""The main process of a context: it forks, reaps, keeps exit statuses and sockets, and starts the supervisor again. It decides nothing."""
