# Shared by the scripts beside this folder: messages, packages, toolchain.
# Sourced, never run. Expects `set -euo pipefail` and the repository root as working directory.

# Where cargo puts what it builds.
TARGET=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# What the product is built from and what the bed runs, by the Debian 12 package that brings it.
BUILD_PACKAGES=(libdpdk-dev libclang-dev clang gcc libc6-dev pkg-config)
BED_PACKAGES=(iproute2 iputils-ping ethtool nftables tcpdump nginx-light util-linux procps
  charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins
  libstrongswan-extra-plugins)
RIVAL_PACKAGES=(keepalived)
CHAOS_PACKAGES=(nftables e2fsprogs mount python3-minimal)
ORACLE_PACKAGES=(python3-scapy python3-cryptography)

# install_packages PACKAGE...: installs what is missing, starting no service.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  [ "$(id -u)" = 0 ] || die "missing packages, and only root can install them: ${missing[*]}"
  command -v apt-get >/dev/null || die "missing packages, and this is no Debian: ${missing[*]}"
  say "installing ${missing[*]}"
  # Packages start their services unless policy forbids it; the bed runs its own instances.
  local policy=/usr/sbin/policy-rc.d status=0 made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
  fi
  apt_install "${missing[@]}" || { apt-get -q update && apt_install "${missing[@]}"; } || status=$?
  [ -z "$made" ] || rm -f "$policy"
  [ "$status" = 0 ] || die "apt-get could not install ${missing[*]}"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" </dev/null
}

# use_toolchain: pins the compiler where rustup can, accepts a newer one where it cannot.
use_toolchain() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  local wanted found
  wanted=$(cat .rust-version)
  if command -v rustup >/dev/null; then
    export RUSTUP_TOOLCHAIN=$wanted
    rustup toolchain list | grep -q "^$wanted" ||
      rustup toolchain install "$wanted" --profile minimal --component rustfmt,clippy
    return
  fi
  command -v cargo >/dev/null || die "there is no cargo: install Rust $wanted (https://rustup.rs)"
  found=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" = "$wanted" ] ||
    die "cargo is $found, but Rust $wanted or newer is needed"
}
