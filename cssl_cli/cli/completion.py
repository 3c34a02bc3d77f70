"""Shell completion: reads the line up to the cursor, prints what may stand there, in the form of the shell.

`cssl --install-completion` and `--show-completion` give the scripts below to bash, zsh and fish. A script calls `cssl`
with the line in the environment, and `__main__` comes here before it imports anything else: a Tab is answered from
completion.json and the files at hand, without typer, pydantic or torch.

Names with control characters are left out: no shell shows them as they are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

VARIABLE = "_CSSL_COMPLETE"
LINE = "_CSSL_COMPLETE_LINE"  # up to the cursor
BREAKS = "_CSSL_COMPLETE_BREAKS"  # bash: the characters after which it begins another word
MOST = 1000  # candidates; nobody reads as many

_BASH = r"""
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(%(autocomplete_var)s=complete_bash _CSSL_COMPLETE_LINE="${COMP_LINE:0:COMP_POINT}" \
             _CSSL_COMPLETE_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    # After optim.lr= or runs/ the word goes on.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/.] ]] && compopt -o nospace
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""
_ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local value help
    local -a whole open shown_whole shown_open
    while IFS=$'\t' read -r value help; do
        [[ -n $help ]] && help="$value  -- $help" || help="$value"
        if [[ $value == *[=/.] ]]; then  # the word goes on
            open+=("$value"); shown_open+=("$help")
        else
            whole+=("$value"); shown_whole+=("$help")
        fi
    done < <(%(autocomplete_var)s=complete_zsh \
             _CSSL_COMPLETE_LINE="${(j: :)${(@qq)${(@Q)words[1,CURRENT-1]}}} ${(qq)${(Q)PREFIX}}" \
             ${(Q)words[1]} 2>/dev/null)
    compadd -l -V cssl -d shown_open -S '' -a open
    compadd -l -V cssl -d shown_whole -a whole
}

if [[ $funcstack[1] == _%(prog_name)s ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
_FISH = (
    "complete --command %(prog_name)s --no-files --keep-order --arguments "
    "'(env %(autocomplete_var)s=complete_fish _CSSL_COMPLETE_LINE=(commandline -cp | string collect) %(prog_name)s)'"
)
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def main(instruction: str) -> int:
    """Do what the variable asks for, such as complete_bash or source_zsh; the exit code."""
    action, _, shell = instruction.partition("_")
    if action not in ("complete", "source") or shell not in SCRIPTS:
        return 1
    if action == "source":
        names = {"complete_func": "_cssl_completion", "autocomplete_var": VARIABLE, "prog_name": "cssl"}
        text = (SCRIPTS[shell] % names).strip()
    else:
        text = "\n".join(complete(shell, os.environ))
    encoding = sys.stdout.encoding or "utf-8"  # a meaning may hold what it lacks
    sys.stdout.write(f"{text}\n".encode(encoding, "replace").decode(encoding) if text else "")
    return 0


def complete(shell: str, environment: Mapping[str, str]) -> list[str]:
    """The lines that the shell's script reads."""
    from cssl_cli.cli.candidates import candidates

    line = _line(environment)
    words, word, quote, raw = split(line)
    while words and re.match(r"\w+=", words[0]):  # VARIABLE=value before the command
        del words[0]
    found = []
    for value, meaning in candidates(words[1:], word):
        if value.startswith(word) and value.isprintable() and _is_text(value):
            found.append((value, " ".join(meaning.split())))
        if len(found) == MOST:
            break
    if shell == "bash":
        kept = 0 if quote else len(unquoted(raw[: _last_break(raw, environment.get(BREAKS, ""))]))
        return [quoted(value[kept:], quote, first=not kept) for value, _ in found]
    return [f"{value}\t{meaning}" if meaning else value for value, meaning in found]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# -------------------------------------------------------------------------------------------------------- shells' words
def _line(environment: Mapping[str, str]) -> str:
    """The line up to the cursor: from our scripts, or from those that typer has by itself."""
    if LINE in environment:
        return environment[LINE]
    if "COMP_WORDS" not in environment:
        return environment.get("_TYPER_COMPLETE_ARGS", "cssl ")
    words = re.split(r"[ \n]", environment["COMP_WORDS"])
    words = words[: int(environment.get("COMP_CWORD") or len(words) - 1) + 1]
    return re.sub(r"(?<=\S) ?= ?", "=", " ".join(words))  # where bash takes a word apart


def split(line: str) -> tuple[list[str], str, str, str]:
    """A line as a shell splits it: the words before the last one, the last one, its open quote, and it as typed."""
    words: list[str] = []
    word, quote, start, begun, position = "", "", 0, False, 0
    while position < len(line):
        character = line[position]
        if character == "\\" and quote != "'":
            position += 1
            following = line[position : position + 1]
            word += following if not quote or following in '$`"\\' else f"\\{following}"
            begun = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "'\"":
            quote, begun = character, True
        elif character in " \t\n":
            if begun:
                words.append(word)
            word, begun, start = "", False, position + 1
        else:
            word, begun = word + character, True
        position += 1
    return words, word, quote, line[start:]


def unquoted(raw: str) -> str:
    """What a shell takes the text for."""
    return split(raw)[1]


def _last_break(raw: str, breaks: Sequence[str]) -> int:
    """The length of what stands before the word that bash would replace, as typed."""
    ends = [found.end() for found in re.finditer(r"\\.|(.)", raw, re.DOTALL) if found[1] and found[1] in breaks]
    return max(ends, default=0)


def quoted(value: str, quote: str, *, first: bool) -> str:
    """The text as it is typed in bash, within an open quote if there is one. first: whether it begins a word."""
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote:
        return re.sub(r'([$`"\\])', r"\\\1", value)
    home = first and re.match(r"~[\w.-]*/|~\w+(?:[.\w]+)?$", value)
    begin = home.end() if home else 0
    return value[:begin] + re.sub(r"([^\w./=:,@%+^-]|(?<!.)~)", r"\\\1", value[begin:])
