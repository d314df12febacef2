# fish completion of the contexts of zmsvc in `systemctl start zmsvc@`, beside that of fish. fish reads this file when it starts: it
# would look for the completion of systemctl in one file only. The contexts are the names of files, so no program runs.

function __zmsvc_units
    set -l directory /etc/zmsvc
    if contains -- --user (commandline -opc)
        set directory ~/.config/zmsvc
        test -n "$XDG_CONFIG_HOME"; and set directory $XDG_CONFIG_HOME/zmsvc
    else if test -n "$ZMSVC_CONFIG_DIR"
        set directory $ZMSVC_CONFIG_DIR
    end
    # The file may have any name, and that of a context has only these characters.
    for file in $directory/Context-*.xml
        string replace -rf '^.*/Context-([A-Za-z0-9_][A-Za-z0-9_.:-]*)\.xml$' 'zmsvc@$1.service' -- $file
    end
end

complete -c systemctl -n 'string match -q "zmsvc@*" -- (commandline -ct)' -a '(__zmsvc_units)'
