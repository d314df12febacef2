#!/usr/bin/env python3
"""Write the completion of zmsvcctl for bash, zsh and fish from its table of verbs, and that of zmsvcd from
its parser: `make completion`.

tests/host/test_ctl_docs.py fails if the files differ from the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zmsvc.ctl.verb_table import GLOBAL, HELP, VERBS, VERSION, Argument, VerbEntry
from zmsvc.keeper.__main__ import parser

FOLDER = Path(__file__).parents[1] / "zmsvc" / "data" / "completion"
MADE = "made by `make completion`"
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


def _valued(verbs: Sequence[VerbEntry]) -> str:
    """Return the flags that have a value for each verb that has them, as a pattern of the shell."""
    everything = [*GLOBAL, *(option for verb in verbs for option in options_of(verb))]
    without = {flag for option in everything if not option.takes_value for flag in option.flags}
    flags = dict.fromkeys(flag for option in everything if option.takes_value for flag in option.flags)
    return "|".join(flag for flag in flags if flag not in without)


def _beginning(shell: str, **words: str) -> str:
    """Return the functions that do not depend on the table, from a file beside this one."""
    text = (Path(__file__).parent / f"completion.{shell}.in").read_text()
    for name, word in {"made": MADE, **words}.items():
        text = text.replace(f"@{name}@", word)
    return text.rstrip("\n")


# --- bash


def bash(verbs: Sequence[VerbEntry] = VERBS) -> str:
    """Return the file for bash."""
    everywhere = _flags((*GLOBAL, HELP))
    names = " ".join(verb.name for verb in verbs)
    lines = [_beginning("bash", valued=_valued(verbs)), ""]
    lines += ["    # Flags that mean something else for another verb.", "    case $verb.$prev in"]
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


MOVING = ("contexts", "transactions", "tasks", "hosts")
"""Words that change while contexts run; `zmsvcctl words` prints them."""


def _bash_offer(what: str) -> str:
    if what in MOVING:
        return f"_zmsvcctl_words {what}"
    if what == "context-files":
        return "_zmsvcctl_files '*.xml'; _zmsvcctl_words contexts"
    if what == "users":
        return "_zmsvcctl_lines < <(compgen -u)"
    if what == "directories":
        return "_zmsvcctl_files ''"
    if what.startswith("files "):
        return f"_zmsvcctl_files '{what[6:]}'"
    return f'_zmsvcctl_offer "{what}"' if what else ""


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
        _beginning("zsh"),
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
        # With `=`, the value may be in the same word, too.
        equals = "=" if value and flag.startswith("--") else ""
        yield _quoted(f"{without}{flag}{equals}[{about}]{value}")


def _zsh_positional(at: int, option: Argument) -> str:
    several = option.settings.get("nargs") in ("*", "+")
    name = option.settings["metavar"].replace(":", "\\:")
    return _quoted(f"{'*' if several else at}:{name}:{_zsh_offer(option.completes)}")


def _zsh_offer(what: str) -> str:
    if what in MOVING:
        return f"_zmsvcctl_words {what}"
    if what.startswith("files "):
        return f'_files -g "{what[6:]}"'
    functions = {
        "": " ",
        "users": "_users",
        "directories": "_directories",
        "context-files": "_zmsvcctl_context_files",
    }
    if what in functions:
        return functions[what]
    return f"({what})" if "$" not in what else " "


# --- fish


def fish(verbs: Sequence[VerbEntry] = VERBS) -> str:
    """Return the file for fish."""
    lines = [_beginning("fish")]
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
    if what in MOVING:
        return f"-a '(__zmsvcctl_words {what})'"
    if what == "context-files":
        return "-a '(__fish_complete_suffix .xml; __zmsvcctl_words contexts)'"
    if what == "users":
        return "-a '(__fish_complete_users)'"
    if what == "directories":
        return "-a '(__fish_complete_directories)'"
    if what.startswith("files "):
        of = f"suffix {what[7:]}" if what[7:] else "path (commandline -ct)"
        return f"-a '(__fish_complete_{of})'"
    # fish executes words in parentheses, even without a dollar sign.
    return f"-a {_fish_quoted(what.replace('$(', '('))}" if what else ""


FILES = {"zmsvcctl.bash": bash, "_zmsvcctl": zsh, "zmsvcctl.fish": fish}


# --- zmsvcd


def _options_of_daemon() -> Iterator[tuple[str, str, str]]:
    """Yield each option of zmsvcd with its help, and the name of its value or an empty text."""
    for action in parser()._actions:
        for flag in action.option_strings:
            yield flag, action.help or "", str(action.metavar or "")


def bash_of_daemon() -> str:
    """Return the file for bash."""
    flags = " ".join(flag for flag, _, _ in _options_of_daemon())
    return _beginning("zmsvcd.bash", flags=flags) + "\n"


def zsh_of_daemon() -> str:
    """Return the file for zsh."""
    options = (
        _quoted(f"{flag}[{about}]" + (f":{value}:{'_files' if value == 'FILE' else ' '}" if value else ""))
        for flag, about, value in _options_of_daemon()
    )
    return _beginning("zmsvcd.zsh", options=" \\\n  ".join(options)) + "\n"


def fish_of_daemon() -> str:
    """Return the file for fish."""
    lines = [f"# fish completion for zmsvcd, {MADE}", "", "complete -c zmsvcd -f"]
    contexts = "command zmsvcctl words contexts 2>/dev/null </dev/null"
    lines.append(f"complete -c zmsvcd -a '({contexts}; __fish_complete_suffix .xml)'")
    for flag, about, value in _options_of_daemon():
        name = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        takes = {"": "", "FILE": " -r -F"}.get(value, " -x")
        lines.append(f"complete -c zmsvcd {name}{takes} -d {_fish_quoted(about)}")
    return "\n".join(lines) + "\n"


FILES_OF_DAEMON = {"zmsvcd.bash": bash_of_daemon, "_zmsvcd": zsh_of_daemon, "zmsvcd.fish": fish_of_daemon}

if __name__ == "__main__":
    for name, text in {name: make() for name, make in (FILES | FILES_OF_DAEMON).items()}.items():
        (FOLDER / name).write_text(text)
    sys.exit()
