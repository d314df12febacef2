"""The process zmsvcctl: sends requests, prints answers, and makes files. Only the supervisor decides about
orders.
"""
