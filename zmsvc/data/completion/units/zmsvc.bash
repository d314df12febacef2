# bash completion of the contexts of zmsvc in `systemctl start zmsvc@`, beside that of systemd. bash-completion reads the files of
# this directory when a shell starts. The contexts are the names of files, so no program runs.

_zmsvc_systemctl()
{
    local line=${COMP_LINE:0:COMP_POINT} directory=${ZMSVC_CONFIG_DIR:-/etc/zmsvc} file name
    local cur=${line##*[[:blank:]]}
    if ! declare -F _systemctl >/dev/null; then
        # The names of bash-completion 2.12 and of earlier releases.
        if declare -F _comp_load >/dev/null; then
            _comp_load systemctl
        elif declare -F __load_completion >/dev/null; then
            __load_completion systemctl
        fi
        # That file has put its own function into this place.
        complete -F _zmsvc_systemctl systemctl
    fi
    if [[ $cur != zmsvc@* ]]; then
        ! declare -F _systemctl >/dev/null || _systemctl "$@"
        return
    fi
    COMPREPLY=()
    [[ " $line " != *" --user "* ]] || directory=${XDG_CONFIG_HOME:-$HOME/.config}/zmsvc
    # A pattern in the shell itself would fail with the option failglob.
    while IFS= read -r file; do
        name=${file##*/Context-}
        name=${name%.xml}
        # The file may have any name, and that of a context has only these characters.
        [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.:-]*$ ]] || continue
        name=zmsvc@$name.service
        # readline replaces only $2, the part of the word that follows a break.
        [[ $name != "$cur"* ]] || COMPREPLY+=("${name#"${cur%"${2-}"}"}")
    done < <(compgen -G "$directory/Context-*.xml")
}

complete -F _zmsvc_systemctl systemctl
