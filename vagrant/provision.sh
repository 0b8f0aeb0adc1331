#!/usr/bin/env bash
# Sets a fresh machine up with what `scripts/run` (edge, client) or `scripts/test` (test) would
# install when first called. Run by Vagrant, by image builders and by hand: provision.sh [ROLE].
set -euo pipefail
case ${1-edge} in
edge | client) packages="run" ;; # a client places `turnout call`: the same packages
test) packages="test" ;;
*)
    echo "provision.sh: unknown role '$1': edge, client or test" >&2
    exit 2
    ;;
esac
exec "$(dirname "$0")/../scripts/setup" "$packages"
