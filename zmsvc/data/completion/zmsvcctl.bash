# bash completion for zmsvcctl, made by `make completion`

# Offer constant words.
_zmsvcctl_offer()
{
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

# Offer each line of standard input that begins with the current word. No line is ever expanded: it may be
# anything, since another user may have chosen the name of a file or of a task. `before` is the part of the word
# that readline leaves alone.
_zmsvcctl_lines()
{
    local name
    while IFS= read -r name; do
        [[ $name != "$cur"* ]] || COMPREPLY+=("${name#"$before"}")
    done
}

# Offer contexts, transactions or tasks of the context and the transaction that the line names. Those of another
# machine are not asked for, since ssh may want a password.
_zmsvcctl_words()
{
    [[ -z $host ]] || return
    local -a options=()
    [[ -z $context ]] || options+=(-c "$context")
    [[ -z $transaction || $1 != tasks ]] || options+=(--transaction "$transaction")
    _zmsvcctl_lines < <(command zmsvcctl words "$1" "${options[@]}" 2>/dev/null </dev/null)
}

_zmsvcctl_files()
{
    compopt -o filenames 2>/dev/null
    _zmsvcctl_lines < <(compgen -f -X "!$1" -- "$cur"; compgen -d -- "$cur")
}

# Split the line up to the cursor into `words`. COMP_WORDS has them in pieces, because COMP_WORDBREAKS has
# characters that names may have (`:` and `@`).
_zmsvcctl_split()
{
    local piece rest=${COMP_LINE:0:COMP_POINT} stripped
    words=()
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        stripped=${rest#"${rest%%[![:blank:]]*}"}
        ((${#stripped} >= ${#piece})) || piece=$stripped
        if [[ $stripped == "$rest" && ${#words[@]} -gt 0 ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
        rest=${stripped#"$piece"}
    done
}

# Set `words`, the word at the cursor and the one before it. $1 is the part of the word that readline replaces, which
# begins after a quote or a break.
_zmsvcctl_begin()
{
    COMPREPLY=()
    _zmsvcctl_split
    cur=${words[-1]}
    prev=
    ((${#words[@]} < 2)) || prev=${words[-2]}
    # An option and the beginning of its value may be one word.
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        cur=${cur#*=}
    fi
    cur=${cur#[\'\"]}
    before=${cur%"$1"}
    [[ $before != "$cur" || -z $1 ]] || before=
    cur=${cur//\\/}
    before=${before//\\/}
}

_zmsvcctl()
{
    local cur prev word verb= context= transaction= host= before index at=0
    local -a words
    _zmsvcctl_begin "${2-}"

    # The verb is the first word that is neither an option nor the value of one; `at` counts the words after it.
    for ((index = 1; index < ${#words[@]} - 1; index++)); do
        word=${words[index]}
        case $word in
            -H|--host) host=${words[++index]} ;;
            -H*|--host=*) host=$word ;;
            -c|--context) context=${words[++index]} ;;
            --context=*) context=${word#*=} ;;
            --transaction) transaction=${words[++index]} ;;
            --transaction=*) transaction=${word#*=} ;;
            -c|--context|-H|--host|--host-timeout|--timeout|--transaction|--task|-n|--lines|--at|--sort|--interval|-p|--property|--for|--output|--listen|--allow|-o|--since|--until|--priority|-g|--grep|--event|--topic|--count|--endpoint|--keys|--format|--fail|--exit|--update|--kill|--script|--expect|--ip|--shared|--fstype|--name|--restart) ((++index)) ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb=$word; else ((++at)); fi ;;
        esac
    done

    # Flags that mean something else for another verb.
    case $verb.$prev in
        logs.--output) _zmsvcctl_offer "$(journalctl --output=help 2>/dev/null)"; return ;;
        logs.-p) _zmsvcctl_offer "emerg alert crit err warning notice info debug"; return ;;
        wiring.--for) return ;;
        wiring.--format) _zmsvcctl_offer "text dot mermaid svg"; return ;;
        simulate.--at) return ;;
        simulate.--for) return ;;
        report.-o) _zmsvcctl_files '*.tar.gz'; return ;;
        report.--output) _zmsvcctl_files '*.tar.gz'; return ;;
    esac
    case $prev in
        -c|--context) _zmsvcctl_words contexts; return ;;
        -H|--host) return ;;
        --host-timeout) return ;;
        --timeout) return ;;
        --transaction) _zmsvcctl_words transactions; return ;;
        --task) _zmsvcctl_words tasks; return ;;
        -n|--lines) return ;;
        --at) _zmsvcctl_offer "today yesterday"; return ;;
        --sort) _zmsvcctl_offer "cpu rss pid id state missed restarts"; return ;;
        --interval) return ;;
        -p|--property) _zmsvcctl_offer "ActiveState SubState MainPID NRestarts StatusText Result ExecMainStatus ExitReason"; return ;;
        --for) _zmsvcctl_offer "active inactive failed"; return ;;
        --output) _zmsvcctl_files '*'; return ;;
        --listen) _zmsvcctl_offer "127.0.0.1:9649 systemd"; return ;;
        --allow) _zmsvcctl_lines < <(compgen -u); return ;;
        -o|--output) _zmsvcctl_offer "$(journalctl --output=help 2>/dev/null)"; return ;;
        --since) _zmsvcctl_offer "today yesterday"; return ;;
        --until) _zmsvcctl_offer "today yesterday"; return ;;
        -p|--priority) _zmsvcctl_offer "emerg alert crit err warning notice info debug"; return ;;
        -g|--grep) return ;;
        --event) _zmsvcctl_offer "failed stopped started launching stopping rule rule-refused requested back-off"; return ;;
        --topic) _zmsvcctl_offer "context control monitor process state"; return ;;
        --count) return ;;
        --endpoint) return ;;
        --keys) _zmsvcctl_files ''; return ;;
        --format) _zmsvcctl_offer "dot mermaid svg"; return ;;
        --fail) _zmsvcctl_words tasks; return ;;
        --exit) _zmsvcctl_words tasks; return ;;
        --update) _zmsvcctl_words tasks; return ;;
        --kill) _zmsvcctl_offer "supervisor device"; return ;;
        --script) _zmsvcctl_files '*'; return ;;
        --expect) return ;;
        --ip) return ;;
        --shared) _zmsvcctl_files '*'; return ;;
        --fstype) return ;;
        --name) return ;;
        --restart) _zmsvcctl_offer "no on-failure always"; return ;;
    esac

    if [[ -z $verb ]]; then
        _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --no-pager --timeout -h --help --version start stop restart signal status top list is-active is-failed is-enabled show why stack wait metrics logs events watch send publish update quarantine check graph wiring simulate report replay keys cluster units create import exit reload reset-failed forget enable disable reexec"
        return
    fi
    if [[ $cur == -* ]]; then
        case $verb in
            start) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --transaction --task" ;;
            stop) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --transaction --task --no-triggers" ;;
            restart) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --transaction --task --no-triggers --one-by-one" ;;
            signal) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --all" ;;
            status) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-pager --timeout -h --help --transaction --task -n --lines --at" ;;
            top) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --task --sort --interval --once" ;;
            list) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help" ;;
            is-active) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --task -q --quiet" ;;
            is-failed) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --task -q --quiet" ;;
            is-enabled) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help -q --quiet" ;;
            show) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction -p --property --value" ;;
            why) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-pager --timeout -h --help --transaction" ;;
            stack) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction" ;;
            wait) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --for" ;;
            metrics) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --openmetrics --output --listen --allow" ;;
            logs) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-pager --timeout -h --help --transaction --task -f --follow -n --lines -o --output --since --until -p --priority -g --grep -r --reverse --show-query" ;;
            events) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --task -f --follow -n --lines --since --event --tree" ;;
            watch) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --topic --count --endpoint --keys" ;;
            send) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --endpoint --keys" ;;
            publish) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help" ;;
            update) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help" ;;
            quarantine) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --all" ;;
            check) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --prove" ;;
            graph) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --format" ;;
            wiring) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --for --format" ;;
            simulate) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --at --fail --exit --update --kill --script --for --matrix --expect" ;;
            report) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help -o --output --yes" ;;
            replay) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-pager --timeout -h --help --until --step" ;;
            keys) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --now" ;;
            cluster) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --ip --shared --fstype" ;;
            units) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --user --install" ;;
            create) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help $(zmsvcctl create --help 2>/dev/null | grep -o -- '--[a-z_]*' | sort -u | tr '\n' ' ')" ;;
            import) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --name --restart" ;;
            exit) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --home" ;;
            reload) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --transaction --task --dry-run" ;;
            reset-failed) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction --task" ;;
            forget) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help --transaction" ;;
            enable) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --now" ;;
            disable) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --no-block --timeout -h --help --now" ;;
            reexec) _zmsvcctl_offer "-c --context --json -H --host --host-timeout --timeout -h --help" ;;
        esac
        return
    fi
    case $verb.$at in
        start.*) _zmsvcctl_words tasks ;;
        stop.*) _zmsvcctl_words tasks ;;
        restart.*) _zmsvcctl_words tasks ;;
        signal.0) _zmsvcctl_offer "HUP INT QUIT USR1 USR2 TERM KILL CONT STOP WINCH" ;;
        signal.*) _zmsvcctl_words tasks ;;
        status.*) _zmsvcctl_words tasks ;;
        top.*) _zmsvcctl_words tasks ;;
        is-active.*) _zmsvcctl_words tasks ;;
        is-failed.*) _zmsvcctl_words tasks ;;
        is-enabled.*) _zmsvcctl_words tasks ;;
        show.*) _zmsvcctl_words tasks ;;
        why.*) _zmsvcctl_words tasks ;;
        stack.*) _zmsvcctl_words tasks ;;
        wait.*) _zmsvcctl_words tasks ;;
        logs.*) _zmsvcctl_words tasks ;;
        events.*) _zmsvcctl_words tasks ;;
        quarantine.0) _zmsvcctl_offer "list show send drop" ;;
        quarantine.*) _zmsvcctl_words tasks ;;
        check.*) _zmsvcctl_files '*.xml' ;;
        graph.0) _zmsvcctl_files '*.xml'; _zmsvcctl_words contexts ;;
        wiring.0) _zmsvcctl_files '*.xml'; _zmsvcctl_words contexts ;;
        simulate.0) _zmsvcctl_files '*.xml' ;;
        report.0) _zmsvcctl_words contexts ;;
        replay.0) _zmsvcctl_files '*.tar.gz' ;;
        keys.0) _zmsvcctl_offer "list make join allow revoke" ;;
        keys.1) _zmsvcctl_files '*.key' ;;
        cluster.0) _zmsvcctl_offer "check give take commands status drain undrain" ;;
        cluster.1) _zmsvcctl_words hosts ;;
        import.0) _zmsvcctl_files '*' ;;
        reload.*) _zmsvcctl_words tasks ;;
        reset-failed.*) _zmsvcctl_words tasks ;;
        enable.*) _zmsvcctl_words tasks ;;
        disable.*) _zmsvcctl_words tasks ;;
    esac
}

complete -F _zmsvcctl zmsvcctl
