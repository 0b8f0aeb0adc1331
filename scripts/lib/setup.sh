# shellcheck shell=bash disable=SC2154 # top, venv and cache come from common.sh
# The steps of scripts/setup: each finds out what is missing and does nothing when nothing is.

log=$cache/setup.log

# step TEXT COMMAND...: one line on the terminal, everything else in the log.
step() {
    printf 'setup: %s\n' "$1"
    printf '\n== %s\n' "$1" >>"$log"
    "${@:2}" >>"$log" 2>&1 && return
    tail -n 25 "$log" >&2
    die "failed: $1 (all of it: ${log#"$PWD"/})"
}

apt() {
    # Another apt may be at work on a machine that has just started.
    DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
}

# missing_packages NAME...: those that are not installed.
missing_packages() {
    local installed
    installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | sed -n 's/^[hi]i  *//p')
    printf '%s\n' "$@" | grep -vxF "$installed" || true
}

# Any headers will do, the kernel's own are best: agent/turnout/kernel/headers.py chooses.
have_headers() {
    [[ -e /lib/modules/$(uname -r)/build/include || -e /sys/kernel/kheaders.tar.xz ]] ||
        compgen -G '/usr/src/linux-headers-*/include' >/dev/null
}

headers_package() {
    local own
    own=linux-headers-$(uname -r)
    if apt-cache show "$own" >/dev/null 2>&1; then
        echo "$own"
    else
        echo "linux-headers-$(dpkg --print-architecture)"
    fi
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if [[ ${#missing[@]} -gt 0 ]] || ! have_headers; then
        step "reading apt's package lists" apt update
    fi
    have_headers || missing+=("$(headers_package)")
    if [[ ${#missing[@]} -gt 0 ]]; then
        step "installing ${#missing[@]} packages: ${missing[*]}" apt install "${missing[@]}"
    fi
}

# The virtual environment stands on Debian's own Python: only that one sees python3-bpfcc.
venv_is_ours() {
    [[ -x $venv/bin/python ]] &&
        grep -qxF 'home = /usr/bin' "$venv/pyvenv.cfg" &&
        grep -qxF 'include-system-site-packages = true' "$venv/pyvenv.cfg" &&
        grep -qxF "version = $(/usr/bin/python3 -c 'import platform; print(platform.python_version())')" \
            "$venv/pyvenv.cfg" &&
        grep -qF -- "$venv" "$venv/bin/pip" # its scripts name their place: a clone may be moved
}

venv_stamp() {
    sha256sum "$top/pyproject.toml" | cut -c1-64
}

venv_is_current() {
    venv_is_ours && [[ -e $venv/turnout-setup && $(<"$venv/turnout-setup") == "$(venv_stamp)" ]]
}

make_venv() {
    venv_is_current && return
    venv_is_ours ||
        step "making .venv on /usr/bin/python3" \
            /usr/bin/python3 -m venv --clear --system-site-packages "$venv"
    step "installing turnout and its Python packages into .venv" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        -e "${top}[dev]"
    venv_stamp >"$venv/turnout-setup"
}

# promtool comes in a package that starts a server: unpacked here, not installed.
unpack_promtool() {
    [[ -x $cache/tools/usr/bin/promtool ]] && return
    local debs=$cache/tools/debs
    rm -rf "$cache/tools"
    mkdir -p "$debs"
    step "fetching promtool" fetch_package prometheus "$debs"
    dpkg -x "$debs"/prometheus_*.deb "$cache/tools"
    rm -r "$debs"
}

# fetch_package NAME DIRECTORY: its .deb; apt's lists may be older than what the mirror has.
fetch_package() (
    cd "$2" || exit
    fetch=(apt-get -q -o APT::Sandbox::User=root download "$1")
    "${fetch[@]}" || { apt update && "${fetch[@]}"; }
)
