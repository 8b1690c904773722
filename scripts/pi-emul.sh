#!/usr/bin/env bash
# A Raspberry Pi on an x86-64 Debian or Ubuntu: qemu-user, an arm64 Python and aarch64 wheels, in one folder.
#
#   scripts/pi-emul.sh FOLDER       then FOLDER/pi5 -c 'import numba', FOLDER/pi4 ..., FOLDER/n2 ...
#
# About 1 GB and a minute. Needs apt-get, dpkg-deb, a pip (PIP, default "python3 -m pip") and the package
# debian-archive-keyring; no root, no binfmt_misc, and nothing of the host's apt is changed. Packages come from
# the mirror that the host's apt uses (or MIRROR); wheels, with what they need, are REQ.
#
# It settles correctness, detection and crashes: an instruction that the CPU lacks is a SIGILL. It says nothing
# of speed, of memory order (the host's is the stronger) or of page size. A child process that is an arm64
# program cannot be started ("Exec format error"); a fork can.
set -euo pipefail

folder=$(realpath -m "${1:?usage: scripts/pi-emul.sh FOLDER}")
suite=${SUITE:-bookworm}       # has python$python
python=${PYV:-3.11}
qemu_suite=${QSUITE:-trixie}   # its qemu shows the emulated CPU in /proc/cpuinfo, which LLVM reads
pip=${PIP:-python3 -m pip}
requirements=${REQ:-numba llvmlite numpy}

host_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 || true
}
mirror=${MIRROR:-$(host_mirror)}
[ -n "$mirror" ] || { echo "pi-emul.sh: apt names no Debian mirror here: set MIRROR to one" >&2; exit 1; }

# $1 suite, $2 architecture: apt's state in a folder of its own. Sets `state` and `options`.
private_apt() {
    state=$folder/apt-$1-$2
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/parts"
    : >"$state/status"
    local key candidate
    for candidate in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ ! -f "$candidate" ] || key=$candidate
    done
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$1" \
        "${key:?install debian-archive-keyring}" >"$state/parts/d.sources"
    options=(
        -q -y -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/parts"
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$state"
        -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache"
        -o APT::Architecture="$2" -o APT::Architectures="$2" -o APT::Default-Release= -o APT::Sandbox::User=root
        -o Debug::NoLocking=1 -o DPkg::Pre-Install-Pkgs::= -o APT::Update::Post-Invoke::=
        -o DPkg::Post-Invoke::=
    )
    apt-get "${options[@]}" update
}

mkdir -p "$folder" "$folder/qemu" "$folder/root"
cd "$folder"

private_apt "$qemu_suite" "$(dpkg --print-architecture)"
(cd "$state/cache/archives" && apt-get "${options[@]}" download qemu-user) # static: needs nothing else
dpkg-deb -x "$state"/cache/archives/qemu-user_*.deb qemu

# Unpacked and never configured, so that no arm64 program has to run for it.
private_apt "$suite" arm64
apt-get "${options[@]}" --no-install-recommends --download-only install "python$python" libgomp1 libstdc++6
if [ "$suite" != bookworm ]; then # /bin, /lib and /sbin are links there
    mkdir -p root/usr/{bin,lib,sbin}
    for link in bin lib sbin; do ln -sfn "usr/$link" "root/$link"; done
fi
for package in "$state"/cache/archives/*.deb; do dpkg-deb -x "$package" root; done

platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_aarch64")
done
# shellcheck disable=SC2086
$pip install -q --disable-pip-version-check --only-binary=:all: --upgrade --target site --implementation cp \
    --python-version "$python" --abi "cp${python/./}" --abi abi3 --abi none "${platforms[@]}" --platform any \
    $requirements

for pair in pi3:cortex-a53 pi4:cortex-a72 pi5:cortex-a76 n2:neoverse-n2; do
    launcher=${pair%%:*}
    cat >"$launcher" <<LAUNCHER
#!/bin/sh
exec "$folder/qemu/usr/bin/qemu-aarch64" -cpu ${pair##*:} -L "$folder/root" \\
    -E PYTHONPATH="$folder/site\${PYTHONPATH:+:\$PYTHONPATH}" "$folder/root/usr/bin/python$python" "\$@"
LAUNCHER
    chmod +x "$launcher"
done
./pi5 -c 'import llvmlite.binding as b, platform as p; print(p.machine(), p.python_version(), b.get_host_cpu_name())'
