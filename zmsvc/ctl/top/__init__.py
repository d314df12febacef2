"""The live view of `top`: what it shows, its keys, and the terminal. The verb is in verbs/top.py."""
