"""The main process of a context: it forks, reaps, keeps exit statuses and sockets, and starts the
supervisor again. It decides nothing.
"""

from zmsvc.host import requirements

# Here, because `python -m zmsvc.keeper` and the installed command both come by before they import what may be
# missing.
requirements.insist("zmsvcd")
