# bash completion for zmsvcctl. Its verbs and options are those of zmsvc/ctl/__main__.py: tests/host/test_ctl_docs.py compares them.

_zmsvcctl()
{
    local cur prev word verb= index
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()

    # The first word that is neither an option nor the value of one.
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        case $word in
            -c|--context|--timeout) ((index++)) ;;
            -*) ;;
            *) verb=$word; break ;;
        esac
    done

    local common='-c --context --json --no-block --no-pager --timeout -h --help'
    local meant='--transaction --task'

    case $prev in
        -c|--context)
            COMPREPLY=($(compgen -W "$(zmsvcctl list 2>/dev/null | while read -r name _; do [[ $name == NAME ]] || echo "$name"; done)" -- "$cur"))
            return ;;
        --format) COMPREPLY=($(compgen -W 'dot mermaid svg' -- "$cur")); return ;;
        -o|--output) [[ $verb == logs ]] && COMPREPLY=($(compgen -W "$(journalctl --output=help 2>/dev/null)" -- "$cur")); return ;;
        -p|--priority) COMPREPLY=($(compgen -W 'emerg alert crit err warning notice info debug' -- "$cur")); return ;;
        --since|--until) COMPREPLY=($(compgen -W 'today yesterday' -- "$cur")); return ;;
        --sort) COMPREPLY=($(compgen -W 'cpu rss pid id restarts' -- "$cur")); return ;;
        --topic) COMPREPLY=($(compgen -W 'context control monitor process state' -- "$cur")); return ;;
        --keys) compopt -o dirnames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")); return ;;
        --timeout|--endpoint|--transaction|--task|-n|--lines|--count|--interval|-g|--grep) return ;;
    esac

    local words
    case $verb in
        '') words="$common --version start stop restart status top list logs events watch send check graph keys units create exit reload reset-failed forget reexec" ;;
        start|reset-failed) words="$common $meant" ;;
        forget) words="$common --transaction" ;;
        stop|restart) words="$common $meant --no-triggers" ;;
        status) words="$common $meant -n --lines" ;;
        logs) words="$common $meant -f --follow -n --lines -o --output --since --until -p --priority -g --grep -r --reverse --show-query" ;;
        top) words="$common $meant --sort --interval --once" ;;
        events) words="$common $meant -f --follow -n --lines" ;;
        watch) words="$common --transaction --topic --count --endpoint --keys" ;;
        send) words="$common --endpoint --keys" ;;
        graph) words="$common --transaction --format" ;;
        units) words="$common --user --install" ;;
        create) words="$common $(zmsvcctl create --help 2>/dev/null | grep -o -- '--[a-z_]*' | sort -u | tr '\n' ' ')" ;;
        keys) words="$common --now" ;;
        list|check|exit|reload|reexec) words=$common ;;
        *) return ;;
    esac
    if [[ -z $verb || $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    elif [[ $verb == keys && $prev == keys ]]; then
        COMPREPLY=($(compgen -W 'list make join allow revoke' -- "$cur"))
    elif [[ $verb == keys && ( $prev == allow || $prev == join ) ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -X '!*.key' -- "$cur") $(compgen -d -- "$cur"))
    elif [[ $verb == check || $verb == graph ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -X '!*.xml' -- "$cur") $(compgen -d -- "$cur"))
    fi
}

complete -F _zmsvcctl zmsvcctl
