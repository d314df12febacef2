# fish completion for zmsvcctl, made by `make completion`

# Offer contexts, transactions or tasks of the context and the transaction that the line names; fish quotes them. Those
# of another machine are not asked for, since ssh may want a password.
function __zmsvcctl_words
    set -l options
    set -l flag
    for token in (commandline -opc)
        switch $flag
            case -c --context
                set -a options -c $token
            case --transaction
                test $argv[1] = tasks; and set -a options --transaction $token
        end
        set flag $token
        switch $token
            case '-H*' --host '--host=*'
                return
            case '--context=*'
                set -a options -c (string replace -- --context= '' $token)
            case '--transaction=*'
                test $argv[1] = tasks; and set -a options --transaction (string replace -- --transaction= '' $token)
        end
    end
    command zmsvcctl words $argv[1] $options 2>/dev/null </dev/null
end

complete -c zmsvcctl -f
complete -c zmsvcctl -s c -l context -x -a '(__zmsvcctl_words contexts)' -d 'the context; the default is the only one that runs'
complete -c zmsvcctl -l json -d 'answer as JSON'
complete -c zmsvcctl -s H -l host -x -d 'run this on another machine, over ssh: [USER@]HOST[:PORT], or several with commas'
complete -c zmsvcctl -l host-timeout -x -d 'with -H: wait no longer for a host; 0 waits as long as it takes'
complete -c zmsvcctl -n '__fish_use_subcommand; or __fish_seen_subcommand_from start stop restart cluster exit reload enable disable' -l no-block -d 'do not wait until an order is carried out'
complete -c zmsvcctl -n '__fish_use_subcommand; or __fish_seen_subcommand_from status why logs replay' -l no-pager -d 'do not use a pager'
complete -c zmsvcctl -l timeout -x -d 'wait no longer, and end with 124; 0 waits as long as it takes'
complete -c zmsvcctl -s h -l help -d 'show the options and end'
complete -c zmsvcctl -n '__fish_use_subcommand' -l version -d 'show the version and end'

complete -c zmsvcctl -n __fish_use_subcommand -a start -d 'start tasks; without an ID in a new transaction, whose ID is printed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from start' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from start' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from start' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a stop -d 'stop tasks with all that they started, or whole transactions'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stop' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stop' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stop' -l no-triggers -d 'fire no rules'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stop' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a restart -d 'stop tasks and start them again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from restart' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from restart' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from restart' -l no-triggers -d 'fire no rules'
complete -c zmsvcctl -n '__fish_seen_subcommand_from restart' -l one-by-one -d 'restart a task when the one before it is ready, and stop at the first that is not'
complete -c zmsvcctl -n '__fish_seen_subcommand_from restart' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a signal -d 'send a signal to tasks'
complete -c zmsvcctl -n '__fish_seen_subcommand_from signal' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from signal' -l all -d 'to every process of the tasks, not to the main ones alone'
complete -c zmsvcctl -n '__fish_seen_subcommand_from signal' -a 'HUP INT QUIT USR1 USR2 TERM KILL CONT STOP WINCH'
complete -c zmsvcctl -n '__fish_seen_subcommand_from signal' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a status -d 'show the context, its transactions and tasks'
complete -c zmsvcctl -n '__fish_seen_subcommand_from status' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from status' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from status' -s n -l lines -x -d 'show the last N only'
complete -c zmsvcctl -n '__fish_seen_subcommand_from status' -l at -x -a 'today yesterday' -d 'show them at this time, from the record'
complete -c zmsvcctl -n '__fish_seen_subcommand_from status' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a top -d 'show what tasks use of the machine, again and again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -l sort -x -a 'cpu rss pid id state missed restarts' -d 'the column to sort by'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -l interval -x -d 'the time between two tables'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -l once -d 'print one table, as without a terminal'
complete -c zmsvcctl -n '__fish_seen_subcommand_from top' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a list -d 'show contexts, known and running'

complete -c zmsvcctl -n __fish_use_subcommand -a is-active -d 'print the states of tasks, and end with 0 if one is active'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-active' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-active' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-active' -s q -l quiet -d 'print nothing; the exit status is the answer'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-active' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a is-failed -d 'print the states of tasks, and end with 0 if one has failed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-failed' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-failed' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-failed' -s q -l quiet -d 'print nothing; the exit status is the answer'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-failed' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a is-enabled -d 'print whether tasks start with a transaction, and end with 0 if one does'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-enabled' -s q -l quiet -d 'print nothing; the exit status is the answer'
complete -c zmsvcctl -n '__fish_seen_subcommand_from is-enabled' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a show -d 'print the properties of tasks or of the context, as NAME=VALUE'
complete -c zmsvcctl -n '__fish_seen_subcommand_from show' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from show' -s p -l property -x -a 'ActiveState SubState MainPID NRestarts StatusText Result ExecMainStatus ExitReason' -d 'only these properties; may be given again, or have several with commas'
complete -c zmsvcctl -n '__fish_seen_subcommand_from show' -l value -d 'print the values without the names'
complete -c zmsvcctl -n '__fish_seen_subcommand_from show' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a why -d 'say why tasks are in their states, and what to do'
complete -c zmsvcctl -n '__fish_seen_subcommand_from why' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from why' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a stack -d 'show where the threads of a Python task are'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stack' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from stack' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a wait -d 'wait until tasks are active, inactive or failed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wait' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wait' -l for -x -a 'active inactive failed' -d 'the state to wait for'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wait' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a metrics -d 'print metrics for Prometheus, write them to a file, or serve them'
complete -c zmsvcctl -n '__fish_seen_subcommand_from metrics' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from metrics' -l openmetrics -d 'print the format OpenMetrics 1.0, not Prometheus\'s own'
complete -c zmsvcctl -n '__fish_seen_subcommand_from metrics' -l output -x -a '(__fish_complete_path (commandline -ct))' -d 'write to this file, for the textfile collector of node_exporter'
complete -c zmsvcctl -n '__fish_seen_subcommand_from metrics' -l listen -x -a '127.0.0.1:9649 systemd' -d 'serve them over HTTP, on a loopback address or on the sockets that systemd has passed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from metrics' -l allow -x -a '(__fish_complete_users)' -d 'with --listen: answer programs of this user, too; may be given again'

complete -c zmsvcctl -n __fish_use_subcommand -a logs -d 'show the log of a context, a transaction or tasks'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s f -l follow -d 'go on with new entries'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s n -l lines -x -d 'show the last N only'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s o -l output -x -a '(journalctl --output=help 2>/dev/null)' -d 'the format, as journalctl has them'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -l since -x -a 'today yesterday' -d 'show only newer entries; a time such as \'-2h\', \'yesterday\' or \'2026-11-29 10:00\''
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -l until -x -a 'today yesterday' -d 'show only older entries'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s p -l priority -x -a 'emerg alert crit err warning notice info debug' -d 'show only entries of this level or worse (err, 3), or of a range (err..info)'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s g -l grep -x -d 'show only entries whose text matches this regular expression'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -s r -l reverse -d 'show the newest first'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -l show-query -d 'print the command that finds the same, and end'
complete -c zmsvcctl -n '__fish_seen_subcommand_from logs' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a events -d 'show the history of what happened to tasks'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -s f -l follow -d 'go on with new entries'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -s n -l lines -x -d 'show the last N only'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -l since -x -a 'today yesterday' -d 'show only newer entries; a time such as \'-2h\', \'yesterday\' or \'2026-11-29 10:00\''
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -l event -x -a 'failed stopped started launching stopping rule rule-refused requested back-off' -d 'only events of this name; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -l tree -d 'show each event below the one that has caused it'
complete -c zmsvcctl -n '__fish_seen_subcommand_from events' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a watch -d 'print every message on the bus'
complete -c zmsvcctl -n '__fish_seen_subcommand_from watch' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from watch' -l topic -x -a 'context control monitor process state' -d 'only messages of this topic; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from watch' -l count -x -d 'end after N messages'
complete -c zmsvcctl -n '__fish_seen_subcommand_from watch' -l endpoint -x -d 'the endpoint of a context on another machine; -c names the context whose keys are used'
complete -c zmsvcctl -n '__fish_seen_subcommand_from watch' -l keys -x -a '(__fish_complete_directories)' -d 'with --endpoint: the CURVE keys to connect with, if they are not the context\'s'

complete -c zmsvcctl -n __fish_use_subcommand -a send -d 'publish a message, and wait until the device has it'
complete -c zmsvcctl -n '__fish_seen_subcommand_from send' -l endpoint -x -d 'the endpoint of a context on another machine; -c names the context whose keys are used'
complete -c zmsvcctl -n '__fish_seen_subcommand_from send' -l keys -x -a '(__fish_complete_directories)' -d 'with --endpoint: the CURVE keys to connect with, if they are not the context\'s'

complete -c zmsvcctl -n __fish_use_subcommand -a publish -d 'in a program of a task: publish a message of this task'

complete -c zmsvcctl -n __fish_use_subcommand -a update -d 'in a program of a task: report a result of this task'

complete -c zmsvcctl -n __fish_use_subcommand -a quarantine -d 'list and show messages that tasks could not handle, send them again, or drop them'
complete -c zmsvcctl -n '__fish_seen_subcommand_from quarantine' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'list: only of this transaction; send: for the task in this one'
complete -c zmsvcctl -n '__fish_seen_subcommand_from quarantine' -l all -d 'drop: all messages'
complete -c zmsvcctl -n '__fish_seen_subcommand_from quarantine' -a 'list show send drop'
complete -c zmsvcctl -n '__fish_seen_subcommand_from quarantine' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a check -d 'find all faults of context files, and warn'
complete -c zmsvcctl -n '__fish_seen_subcommand_from check' -l prove -d 'try all failures in all states, and show a counter-example'
complete -c zmsvcctl -n '__fish_seen_subcommand_from check' -a '(__fish_complete_suffix .xml)'

complete -c zmsvcctl -n __fish_use_subcommand -a graph -d 'draw tasks, rules and messages, with their states if the context runs'
complete -c zmsvcctl -n '__fish_seen_subcommand_from graph' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from graph' -l format -x -a 'dot mermaid svg' -d 'the language of the drawing; svg needs graphviz'
complete -c zmsvcctl -n '__fish_seen_subcommand_from graph' -a '(__fish_complete_suffix .xml; __zmsvcctl_words contexts)'

complete -c zmsvcctl -n __fish_use_subcommand -a wiring -d 'show who publishes which messages to whom'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wiring' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wiring' -l for -x -d 'listen for so long, such as 10s; 0 does not listen; the default is 2s'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wiring' -l format -x -a 'text dot mermaid svg' -d 'a table, or the language of a drawing; svg needs graphviz'
complete -c zmsvcctl -n '__fish_seen_subcommand_from wiring' -a '(__fish_complete_suffix .xml; __zmsvcctl_words contexts)'

complete -c zmsvcctl -n __fish_use_subcommand -a simulate -d 'show what a context would do, without a process'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l at -x -d 'the time after the start at which the events that follow happen'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l fail -x -a '(__zmsvcctl_words tasks)' -d 'a task fails: exit-code[:N], signal[:NAME], oom-kill, watchdog, unhealthy, silent, memory-limit, lost, or at its next start: not-ready, cannot-launch'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l exit -x -a '(__zmsvcctl_words tasks)' -d 'a task ends by itself with status 0'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l update -x -a '(__zmsvcctl_words tasks)' -d 'a task reports an update'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l kill -x -a 'supervisor device' -d 'the supervisor, the device or a task is killed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l script -x -a '(__fish_complete_path (commandline -ct))' -d 'a file with such events, one on each line, as `fail TASK`; they come first'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l for -x -d 'the time that is simulated; the default is 10min'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l matrix -d 'simulate each failure of each task, one at a time'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -l expect -x -d '\'after fail(TASK): active(TASK) within 5s\'; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from simulate' -a '(__fish_complete_suffix .xml)'

complete -c zmsvcctl -n __fish_use_subcommand -a report -d 'pack what is known about a context into one file, to find out what happened'
complete -c zmsvcctl -n '__fish_seen_subcommand_from report' -s o -l output -x -a '(__fish_complete_suffix .tar.gz)' -d 'the file; the default is zmsvc-report-NAME-TIME.tar.gz'
complete -c zmsvcctl -n '__fish_seen_subcommand_from report' -l yes -d 'write the file without a question'
complete -c zmsvcctl -n '__fish_seen_subcommand_from report' -a '(__zmsvcctl_words contexts)'

complete -c zmsvcctl -n __fish_use_subcommand -a replay -d 'run a record again, and show the tasks at any moment'
complete -c zmsvcctl -n '__fish_seen_subcommand_from replay' -l until -x -a 'today yesterday' -d 'end at this time, and show the tasks then'
complete -c zmsvcctl -n '__fish_seen_subcommand_from replay' -l step -d 'show each fact and the decisions that followed'
complete -c zmsvcctl -n '__fish_seen_subcommand_from replay' -a '(__fish_complete_suffix .tar.gz)'

complete -c zmsvcctl -n __fish_use_subcommand -a keys -d 'show CURVE keys, make them, and say who may connect'
complete -c zmsvcctl -n '__fish_seen_subcommand_from keys' -l now -d 'revoke: end the connections that are open, too'
complete -c zmsvcctl -n '__fish_seen_subcommand_from keys' -a 'list make join allow revoke'
complete -c zmsvcctl -n '__fish_seen_subcommand_from keys' -a '(__fish_complete_suffix .key)'

complete -c zmsvcctl -n __fish_use_subcommand -a cluster -d 'give a context to a cluster of Pacemaker, check a host, drain it, and show where it runs'
complete -c zmsvcctl -n '__fish_seen_subcommand_from cluster' -l ip -x -d 'commands: an address that moves with the context'
complete -c zmsvcctl -n '__fish_seen_subcommand_from cluster' -l shared -x -a '(__fish_complete_path (commandline -ct))' -d 'commands: the disk of the state directory, which moves with the context'
complete -c zmsvcctl -n '__fish_seen_subcommand_from cluster' -l fstype -x -d 'commands: the type of the file system on that disk; the default is ext4'
complete -c zmsvcctl -n '__fish_seen_subcommand_from cluster' -a 'check give take commands status drain undrain'
complete -c zmsvcctl -n '__fish_seen_subcommand_from cluster' -a '(__zmsvcctl_words hosts)'

complete -c zmsvcctl -n __fish_use_subcommand -a units -d 'print the systemd units with the paths of this installation, or install them'
complete -c zmsvcctl -n '__fish_seen_subcommand_from units' -l user -d 'the unit of a user\'s own service manager'
complete -c zmsvcctl -n '__fish_seen_subcommand_from units' -l install -d 'put them where systemd looks for them'

complete -c zmsvcctl -n __fish_use_subcommand -a create -d 'make services and their context file'
complete -c zmsvcctl -n '__fish_seen_subcommand_from create' -a '(zmsvcctl create --help 2>/dev/null | grep -o -- \'--[a-z_]*\' | sort -u)'

complete -c zmsvcctl -n __fish_use_subcommand -a import -d 'make a context out of the file of Supervisor or another manager'
complete -c zmsvcctl -n '__fish_seen_subcommand_from import' -l name -x -d 'the name of the context; the default is that of the file'
complete -c zmsvcctl -n '__fish_seen_subcommand_from import' -l restart -x -a 'no on-failure always' -d 'after which ends tasks start again, whatever the file says'
complete -c zmsvcctl -n '__fish_seen_subcommand_from import' -a '(__fish_complete_path (commandline -ct))'

complete -c zmsvcctl -n __fish_use_subcommand -a exit -d 'stop all tasks and end the context\'s daemon'
complete -c zmsvcctl -n '__fish_seen_subcommand_from exit' -l home -d 'leave the tasks on other hosts to the next supervisor'

complete -c zmsvcctl -n __fish_use_subcommand -a reload -d 'read the context file again, and change what differs; with tasks, have these reload'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reload' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reload' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reload' -l dry-run -d 'print what would stop and start, in order, and change nothing'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reload' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a reset-failed -d 'forget failures, and the start limits that they reached'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reset-failed' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reset-failed' -l task -x -a '(__zmsvcctl_words tasks)' -d 'a task; may be given again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from reset-failed' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a forget -d 'forget stopped transactions, which can then no longer be started again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from forget' -l transaction -x -a '(__zmsvcctl_words transactions)' -d 'the transaction'

complete -c zmsvcctl -n __fish_use_subcommand -a enable -d 'let disabled tasks start with a transaction again'
complete -c zmsvcctl -n '__fish_seen_subcommand_from enable' -l now -d 'start the tasks as well'
complete -c zmsvcctl -n '__fish_seen_subcommand_from enable' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a disable -d 'let tasks no longer start with a transaction'
complete -c zmsvcctl -n '__fish_seen_subcommand_from disable' -l now -d 'stop those that run'
complete -c zmsvcctl -n '__fish_seen_subcommand_from disable' -a '(__zmsvcctl_words tasks)'

complete -c zmsvcctl -n __fish_use_subcommand -a reexec -d 'replace the supervisor, as after an upgrade; tasks go on'
