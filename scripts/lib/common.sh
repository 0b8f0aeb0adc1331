# shellcheck shell=bash
# shellcheck disable=SC2034 # the names below are for those who source this
# What every script here starts with; sourced, never run.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" # a root shell opened by plain `su` has neither

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$top/.venv
cache=$top/.cache

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# become_root ARGUMENTS...: run this script again under sudo, unless this is root already.
become_root() {
    [[ $EUID -eq 0 ]] && return
    command -v sudo >/dev/null ||
        die "needs root (packages, BPF programs, network namespaces) and there is no sudo: run it as root"
    exec sudo -- "$0" "$@"
}
