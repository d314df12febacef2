"""The commands of zmicroservices 1.0: conf_command.py and display.py."""
