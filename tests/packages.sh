#!/usr/bin/env bash
# Installs what some tests use beyond Python: browsers, emulators, cross compilers, two npm packages. Tests whose tool is
# absent are skipped with the command that installs it, so this never fails: it prints what is missing in the end.
#
#   tests/packages.sh           Debian packages (as root or with sudo) and the WebAssembly runtimes
#   tests/packages.sh arm64     and an emulated ARM64 Python with LiteRT, 180 MB
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

debian=(
    adb openssh-client openssh-server
    chromium libvulkan1 nodejs npm
    gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib qemu-system-arm
    qemu-user-static debian-archive-keyring
    maven default-jdk-headless aapt zipalign apksigner zip unzip
)
wanted=()
for package in "${debian[@]}"; do
    # Node and npm may have come from elsewhere.
    case "$package" in
        nodejs) command -v node > /dev/null && continue ;;
        default-jdk-headless) command -v javac > /dev/null && continue ;;
        npm | adb | chromium) command -v "$package" > /dev/null && continue ;;
    esac
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || wanted+=("$package")
done
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
if [ ${#wanted[@]} -gt 0 ] && command -v apt-get > /dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null; }; then
    "${as_root[@]}" apt-get -qq -o Acquire::Retries=2 update > /dev/null 2>&1
    # One by one when they do not go together: what can be had is had.
    install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq -y --no-install-recommends install "$@"; }
    install "${wanted[@]}" > /dev/null 2>&1 || for package in "${wanted[@]}"; do install "$package" > /dev/null 2>&1; done
fi

cache="${TFLITE_EXPORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tflite_export}"
if [ ! -f "$cache/web/node_modules/@litertjs/core/package.json" ] ||
    [ ! -f "$cache/web/node_modules/@tensorflow/tfjs-tflite/package.json" ]; then
    mkdir -p "$cache/web"
    npm install --prefix "$cache/web" --ignore-scripts --no-audit --no-fund --silent \
        @litertjs/core@2.5.3 @tensorflow/tfjs-tflite@0.0.1-alpha.10 > /dev/null 2>&1
fi
[ "${1:-}" = arm64 ] && "${PYTHON:-python3}" -m tflite_export.bench.arm64_root

missing=()
for tool in adb sshd chromium node npm arm-none-eabi-g++ qemu-system-arm qemu-aarch64-static \
    mvn javac aapt2 zipalign apksigner; do
    PATH="$PATH:/usr/sbin" command -v "$tool" > /dev/null || missing+=("$tool")
done
[ -d "$cache/web/node_modules/@litertjs/core" ] || missing+=("@litertjs/core")
[ -d "$cache/web/node_modules/@tensorflow/tfjs-tflite" ] || missing+=("@tensorflow/tfjs-tflite")
if [ ${#missing[@]} -gt 0 ]; then
    echo "tests that need these are skipped: ${missing[*]}"
else
    echo "everything that tests use is here"
fi
exit 0
