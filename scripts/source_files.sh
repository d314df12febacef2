# For deb.sh and rpm.sh: the files of the tree $source of which a package is made.

# Print their names, NUL after each: the files that git tracks or would add; in an unpacked source distribution, all files
# except leftovers of builds and tests.
source_files() {
    [ -e "$source/cockpit/dist/index.html" ] ||
        echo "the package will be without the page for Cockpit, because cockpit/dist is missing (make cockpit makes it)" >&2
    if [ -e "$source/.git" ]; then
        git -c safe.directory='*' -C "$source" ls-files -z --cached --others --exclude-standard
        # git ignores the page for Cockpit, which `make cockpit` has made.
        [ ! -d "$source/cockpit/dist" ] || (cd "$source" && find cockpit/dist -type f -print0)
    else
        (cd "$source" && find . \( -name .venv -o -name build -o -path ./dist -o -name node_modules -o -name __pycache__ -o -name '*.egg-info' -o -name '.*_cache' \) \
            -prune -o \( -type f -o -type l \) -printf '%P\0')
    fi
}
