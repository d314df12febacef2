#!/usr/bin/env python3
"""Write the completion of zmsvcctl for bash, zsh and fish, from its table of verbs: `make completion`.

tests/host/test_ctl_docs.py fails if the files differ from the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zmsvc.ctl.verb_table import GLOBAL, HELP, VERBS, VERSION, Argument, VerbEntry

FOLDER = Path(__file__).parents[1] / "zmsvc" / "data" / "completion"
MADE = "made by `make completion` from zmsvc/ctl/verb_table.py"
CONTEXTS = 'zmsvcctl list 2>/dev/null | while read -r name _; do [ "$name" = NAME ] || echo "$name"; done'
CREATE = "zmsvcctl create --help 2>/dev/null | grep -o -- '--[a-z_]*' | sort -u"


def options_of(verb: VerbEntry) -> list[Argument]:
    return [each for each in verb.options if not each.positional]


def positionals_of(verb: VerbEntry) -> list[Argument]:
    return [each for each in verb.options if each.positional]


def everywhere(verbs: Sequence[VerbEntry]) -> list[Argument]:
    """Return the options that mean something to each verb."""
    return [option for option in (*GLOBAL, HELP) if all(verb.understands(option) for verb in verbs)]


def global_options_of(verb: VerbEntry, verbs: Sequence[VerbEntry]) -> list[Argument]:
    """Return the options of all verbs that mean something to this one, and nothing to another one."""
    common = everywhere(verbs)
    return [option for option in GLOBAL if option not in common and verb.understands(option)]


def with_values(verbs: Sequence[VerbEntry]) -> dict[str, Argument]:
    """Return each option with a value, by its flags as a pattern of the shell. Verbs share the meaning of a
    flag, except for those of `with_other_values`.
    """
    everything = [*GLOBAL, *(option for verb in verbs for option in options_of(verb))]
    found: dict[str, Argument] = {}
    for each in everything:
        if each.takes_value:
            found.setdefault("|".join(each.flags), each)
    return found


def with_other_values(verbs: Sequence[VerbEntry]) -> dict[str, Argument]:
    """Return each option with a flag that has another meaning, or other values, for an earlier verb, by verb
    and flag.
    """
    first: dict[str, Argument] = {}
    found = {}
    for verb in verbs:
        for option in options_of(verb):
            for flag in option.flags:
                known = first.setdefault(flag, option)
                if (known.flags, known.completes) != (option.flags, option.completes):
                    found[f"{verb.name} {flag}"] = option
    return found


# --- bash


def _bash_beginning(before: str) -> list[str]:
    """Return the lines up to the table of options. `before` is a pattern of the options before the verb that
    have a value.
    """
    return [
        f"# bash completion for zmsvcctl, {MADE}",
        "",
        "_zmsvcctl_offer()",
        "{",
        '    COMPREPLY=($(compgen -W "$1" -- "$cur"))',
        "}",
        "",
        "_zmsvcctl_files()",
        "{",
        "    compopt -o filenames 2>/dev/null",
        '    COMPREPLY=($(compgen -f -X "!$1" -- "$cur") $(compgen -d -- "$cur"))',
        "}",
        "",
        "_zmsvcctl()",
        "{",
        "    local cur prev word verb= index at=0",
        "    cur=${COMP_WORDS[COMP_CWORD]}",
        "    prev=${COMP_WORDS[COMP_CWORD-1]}",
        "    COMPREPLY=()",
        "",
        "    # The verb is the first word that is neither an option nor the value of one; `at` counts the "
        "words after it.",
        "    for ((index = 1; index < COMP_CWORD; index++)); do",
        "        word=${COMP_WORDS[index]}",
        "        case $word in",
        f"            {before}) ((index++)) ;;",
        "            -*) ;;",
        "            *) if [[ -z $verb ]]; then verb=$word; else ((at++)); fi ;;",
        "        esac",
        "    done",
        "",
        "    # Flags that mean something else for another verb.",
        "    case $verb.$prev in",
    ]


def bash(verbs: Sequence[VerbEntry] = VERBS) -> str:
    """Return the file for bash."""
    everywhere = _flags((*GLOBAL, HELP))
    before = "|".join(flag for option in GLOBAL if option.takes_value for flag in option.flags)
    names = " ".join(verb.name for verb in verbs)
    lines = _bash_beginning(before)
    lines += [
        f"        {place.replace(' ', '.')}) {_bash_value(option)}return ;;"
        for place, option in with_other_values(verbs).items()
    ]
    lines += ["    esac", "    case $prev in"]
    lines += [
        f"        {flags}) {_bash_value(option)}return ;;" for flags, option in with_values(verbs).items()
    ]
    lines += ["    esac", "", "    if [[ -z $verb ]]; then"]
    lines += [
        f'        _zmsvcctl_offer "{everywhere} --version {names}"',
        "        return",
        "    fi",
        "    if [[ $cur == -* ]]; then",
    ]
    lines += ["        case $verb in"]
    for verb in verbs:
        own = f"$({CREATE} | tr '\\n' ' ')" if verb.own_arguments else _flags(options_of(verb))
        understood = _flags(option for option in (*GLOBAL, HELP) if verb.understands(option))
        lines.append(
            f'            {verb.name}) _zmsvcctl_offer "{" ".join(filter(None, (understood, own)))}" ;;'
        )
    lines += ["        esac", "        return", "    fi", "    case $verb.$at in"]
    for verb in verbs:
        lines += [f"        {each} ;;" for each in _bash_positionals(verb)]
    lines += ["    esac", "}", "", "complete -F _zmsvcctl zmsvcctl"]
    return "\n".join(lines) + "\n"


def _flags(options: Iterable[Argument]) -> str:
    return " ".join(flag for option in options for flag in option.flags)


def _bash_value(option: Argument) -> str:
    offer = _bash_offer(option.completes)
    return f"{offer}; " if offer else ""


def _bash_offer(what: str) -> str:
    if what in ("", "contexts", "directories"):
        return {"": "", "contexts": f'_zmsvcctl_offer "$({CONTEXTS})"', "directories": "_zmsvcctl_files ''"}[
            what
        ]
    if what.startswith("files "):
        return f"_zmsvcctl_files '{what[6:]}'"
    return f'_zmsvcctl_offer "{what}"'


def _bash_positionals(verb: VerbEntry) -> Iterator[str]:
    for at, option in enumerate(positionals_of(verb)):
        if option.completes:
            place = "*" if option.settings.get("nargs") in ("*", "+") else str(at)
            yield f"{verb.name}.{place}) {_bash_offer(option.completes)}"


# --- zsh


def zsh(verbs: Sequence[VerbEntry] = VERBS) -> str:
    """Return the file for zsh."""
    some = [option for option in GLOBAL if option not in everywhere(verbs)]
    before = " ".join(each for option in (*some, VERSION) for each in _zsh_option(option))
    lines = [
        "#compdef zmsvcctl",
        f"# {MADE}",
        "",
        "_zmsvcctl_contexts() {",
        "  local -a names",
        f'  names=(${{(f)"$({CONTEXTS})"}})',
        "  compadd -a names",
        "}",
        "",
        "_zmsvcctl() {",
        "  local curcontext=$curcontext state line",
        "  local -a everywhere verbs",
        "  everywhere=(",
        *(f"    {each}" for option in everywhere(verbs) for each in _zsh_option(option)),
        "  )",
        "  verbs=(",
        *(f"    {_quoted(f'{verb.name}:{verb.about}')}" for verb in verbs),
        "  )",
        f"  _arguments -C $everywhere {before} '1:verb:->verb' '*::argument:->argument'",
        "  case $state in",
        "    verb) _describe verb verbs ;;",
        "    argument)",
        "      case $words[1] in",
    ]
    for verb in verbs:
        options = (*global_options_of(verb, verbs), *options_of(verb))
        own = [each for option in options for each in _zsh_option(option)]
        own += [_zsh_positional(at, option) for at, option in enumerate(positionals_of(verb), 1)]
        own += [f'"${{(@f)$({CREATE})}}"', "'*:value:_default'"] if verb.own_arguments else []
        lines += [
            f"        {verb.name})",
            " \\\n            ".join(["          _arguments $everywhere", *own]) + " ;;",
        ]
    lines += ["      esac ;;", "  esac", "}", "", '_zmsvcctl "$@"']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_option(option: Argument) -> Iterator[str]:
    about = option.settings["help"].replace("[", "(").replace("]", ")").replace(":", "\\:")
    repeated = option.settings.get("action") == "append"
    without = "*" if repeated else f"({' '.join(option.flags)})"
    value = (
        f":{option.settings.get('metavar', 'VALUE')}:{_zsh_offer(option.completes)}"
        if option.takes_value
        else ""
    )
    for flag in option.flags:
        yield _quoted(f"{without}{flag}[{about}]{value}")


def _zsh_positional(at: int, option: Argument) -> str:
    several = option.settings.get("nargs") in ("*", "+")
    name = option.settings["metavar"].replace(":", "\\:")
    return _quoted(f"{'*' if several else at}:{name}:{_zsh_offer(option.completes)}")


def _zsh_offer(what: str) -> str:
    if what in ("", "contexts", "directories"):
        return {"": " ", "contexts": "_zmsvcctl_contexts", "directories": "_directories"}[what]
    if what.startswith("files "):
        return f'_files -g "{what[6:]}"'
    return f"({what})" if "$" not in what else " "


# --- fish


def fish(verbs: Sequence[VerbEntry] = VERBS) -> str:
    """Return the file for fish."""
    lines = [f"# fish completion for zmsvcctl, {MADE}", "", "complete -c zmsvcctl -f"]
    for option in (*GLOBAL, HELP):
        names = [verb.name for verb in verbs if verb.understands(option)]
        where = f"__fish_use_subcommand; or __fish_seen_subcommand_from {' '.join(names)}"
        lines.append(_fish_option(option, where if len(names) < len(verbs) else ""))
    lines += [_fish_option(VERSION, "__fish_use_subcommand")]
    for verb in verbs:
        lines += [
            "",
            f"complete -c zmsvcctl -n __fish_use_subcommand -a {verb.name} -d {_fish_quoted(verb.about)}",
        ]
        seen = f"__fish_seen_subcommand_from {verb.name}"
        lines += [_fish_option(option, seen) for option in options_of(verb)]
        for option in positionals_of(verb):
            if option.completes:
                lines.append(f"complete -c zmsvcctl -n {_fish_quoted(seen)} {_fish_offer(option.completes)}")
        if verb.own_arguments:
            lines.append(f"complete -c zmsvcctl -n {_fish_quoted(seen)} -a {_fish_quoted(f'({CREATE})')}")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(option: Argument, where: str) -> str:
    words = ["complete -c zmsvcctl"]
    words += [f"-n {_fish_quoted(where)}"] if where else []
    words += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    words += [f"-x {_fish_offer(option.completes)}".rstrip()] if option.takes_value else []
    return " ".join([*words, f"-d {_fish_quoted(option.settings['help'])}"])


def _fish_offer(what: str) -> str:
    if what == "contexts":
        return "-a \"(zmsvcctl list 2>/dev/null | string match -r '^\\S+' | string match -v NAME)\""
    if what == "directories":
        return "-a '(__fish_complete_directories)'"
    if what.startswith("files "):
        of = f"suffix {what[7:]}" if what[7:] else "path (commandline -ct)"
        return f"-a '(__fish_complete_{of})'"
    # fish executes words in parentheses, even without a dollar sign.
    return f"-a {_fish_quoted(what.replace('$(', '('))}" if what else ""


FILES = {"zmsvcctl.bash": bash, "_zmsvcctl": zsh, "zmsvcctl.fish": fish}

if __name__ == "__main__":
    for name, make in FILES.items():
        (FOLDER / name).write_text(make())
    sys.exit()
