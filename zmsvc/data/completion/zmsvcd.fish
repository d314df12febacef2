# fish completion for zmsvcd, made by `make completion`

complete -c zmsvcd -f
complete -c zmsvcd -a '(command zmsvcctl words contexts 2>/dev/null </dev/null; __fish_complete_suffix .xml)'
complete -c zmsvcd -s h -d 'show this help message and exit'
complete -c zmsvcd -l help -d 'show this help message and exit'
complete -c zmsvcd -l foreground -d 'stay in the foreground (the default)'
complete -c zmsvcd -l detach -d 'become a daemon; return when the context is ready'
complete -c zmsvcd -l no-autostart -d 'open no transaction if there is none to resume'
complete -c zmsvcd -l transaction -x -d 'open this transaction if it is not open'
complete -c zmsvcd -l resume-from -r -F -d 'resume what another host has written down, and not what this one knows'
complete -c zmsvcd -l host -x -d 'run the tasks that the context places on this host, for a supervisor on another one'
complete -c zmsvcd -l version -d 'show program\'s version number and exit'
