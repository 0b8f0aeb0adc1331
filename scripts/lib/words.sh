#!/usr/bin/env bash
# Prints every line of the sources that names this machine (the place of the clone, the hosts of its
# package registries) or that says it is unfinished; ends with 1 if there is any.
. "$(dirname "$0")/common.sh"
cd "$top"

forbidden=()
parent=$(dirname "$top")/
[[ $parent == / ]] || forbidden+=(-e "$parent")
[[ ${HOME-/root} == /root ]] || forbidden+=(-e "$HOME/")
sources=(/etc/apt/sources.list /etc/apt/sources.list.d /etc/pip.conf ~/.config/pip ~/.pip ~/.npmrc)
while read -r host; do
    forbidden+=(-e "$host")
done < <(grep -rhoE 'https?://[^/ "]+' "${sources[@]}" 2>/dev/null | sed 's#.*//##; s#.*@##' | sort -u)

found=0
# refuse ARGUMENTS...: those of git grep; 1 is "not found", anything else than 0 or 1 is an error.
refuse() {
    local status=0
    git grep --no-index --exclude-standard -nI "$@" || status=$?
    case $status in
    0) found=1 ;;
    1) ;;
    *) die "git grep ended with $status" ;;
    esac
}

[[ ${#forbidden[@]} -eq 0 ]] || refuse -F "${forbidden[@]}" -- .
refuse -E '\b(TO''DO|FIX''ME|XX''X|NotImplemented''Error)\b' -- '*.py' '*.c' '*.h'
exit "$found"
