# bash completion for zmsvcd, made by `make completion`

# The functions are those of zmsvcctl.
declare -F _zmsvcctl_begin >/dev/null || . "${BASH_SOURCE[0]%/*}/zmsvcctl.bash"

_zmsvcd()
{
    local cur prev before context= transaction= host=
    local -a words
    _zmsvcctl_begin "${2-}"
    case $prev in
        --transaction | --host) return ;;
        --resume-from) _zmsvcctl_files '*'; return ;;
    esac
    if [[ $cur == -* ]]; then
        _zmsvcctl_offer "-h --help --foreground --detach --no-autostart --transaction --resume-from --host --version"
        return
    fi
    _zmsvcctl_files '*.xml'
    _zmsvcctl_words contexts
}

complete -F _zmsvcd zmsvcd
