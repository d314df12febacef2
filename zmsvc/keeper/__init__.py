"""The main process of a context. It forks and reaps tasks, keeps their exit statuses and the listening
sockets, and restarts the supervisor. It makes no decisions.
"""

from zmsvc.host import requirements

# Check the requirements here: `python -m zmsvc.keeper` and the installed command both import this package
# before any module that may be missing.
requirements.insist("zmsvcd")
