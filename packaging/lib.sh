# shellcheck shell=bash
# lib.sh - what packaging/demo and packaging/test share: Debian packages, and the extension built in place.
# Sourced by them, from the top of the tree. Runs as: root, or anybody when nothing is missing.

# What it takes to build and run, on Debian 12 and newer.
# shellcheck disable=SC2034  # read by those who source this
run_packages=(python3 python3-dev python3-cffi python3-structlog python3-sdnotify python3-prometheus-client python3-rich python3-setuptools gcc libc6-dev libpcre2-dev libseccomp-dev
              libssl-dev libnghttp2-dev)
# What it takes to build the Debian package besides, and to look at it.
# shellcheck disable=SC2034
package_packages=(build-essential dpkg-dev debhelper dh-python lintian)
# What the demo's programs need besides.
# shellcheck disable=SC2034
program_packages=(php-fpm python3-waitress)

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

missing() { # missing PACKAGE...: print those that are not installed
    local package
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

without_services() ( # without_services COMMAND...: run it; services it installs are not started (policy-rc.d; see invoke-rc.d(8))
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then # else whoever wrote that one decides
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    "$@"
)

install() { # install PACKAGE...: have Debian install what is missing, and start none of it; quick when nothing is
    local wanted
    command -v dpkg-query >/dev/null || die "this needs Debian 12 or newer: there is no dpkg here"
    mapfile -t wanted < <(missing "$@")
    [ "${#wanted[@]}" -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing: ${wanted[*]}. Run it with sudo once, to have them installed"
    say "installing ${wanted[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update failed; see its words above"
    without_services apt-get install -qq -y --no-install-recommends "${wanted[@]}" >/dev/null || die "apt-get install ${wanted[*]} failed; see its words above"
}

build() { # compile the extension into perchild/, if its sources are newer
    /usr/bin/python3 native/build.py || die "the extension was not built; see the compiler's words above"
}

give_back() { # give_back PATH...: what root made in the tree belongs to the tree's owner
    local path
    [ "$(id -u)" = 0 ] || return 0
    for path; do
        [ ! -e "$path" ] || chown -R --reference=. "$path"
    done
}
