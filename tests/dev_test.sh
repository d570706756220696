#!/usr/bin/env bash
# Tests of ./dev itself that change nothing: bash can read it, and its answers to help, mistakes and missing things.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
failures=0

check() { # NAME COMMAND...
  local name=$1
  shift
  if "$@"; then
    echo "ok: $name"
  else
    echo "FAILED: $name"
    failures=$((failures + 1))
  fi
}

bash_reads() { bash -n "$1"; }
no_findings() { shellcheck --severity=warning "$@"; }

help_names_commands() {
  local text command
  text=$("$root/dev" help) || return 1
  for command in run build test test-long test-gpu format lint setup help; do
    grep -q "^  $command\b" <<<"$text" || return 1
  done
}

# refuses WORDS COMMAND...: the command fails and says WORDS on stderr.
refuses() {
  local words=$1 message
  shift
  if message=$("$@" 2>&1 >/dev/null); then return 1; fi
  grep -q -- "$words" <<<"$message"
}

# On a machine without anything and without a way to become root, ./dev says what to ask an administrator for. A PATH
# that holds only these few programs stands for such a machine.
names_missing_packages() {
  local bin status=0
  bin=$(mktemp -d)
  for program in bash dirname grep head sed sort uname find awk nproc touch mktemp printf; do
    ln -s "$(type -P "$program")" "$bin/$program"
  done
  printf '#!/bin/sh\necho 1000\n' >"$bin/id"
  printf '#!/bin/sh\nexit 99\n' >"$bin/apt-get"
  chmod +x "$bin/id" "$bin/apt-get"
  refuses 'administrator run: apt-get install .*cmake' env PATH="$bin" "$bin/bash" "$root/dev" lint || status=1
  rm -r "$bin"
  return "$status"
}

check "bash reads ./dev" bash_reads "$root/dev"
check "bash reads .ci/run" bash_reads "$root/.ci/run"
if command -v shellcheck >/dev/null; then
  check "shellcheck has nothing to say" no_findings "$root/dev" "$root/.ci/run" "${BASH_SOURCE[0]}"
fi
check "help names every command" help_names_commands
check "an unknown command is refused" refuses 'unknown command: fly' "$root/dev" fly
check "test-gpu says why it cannot" refuses 'NVIDIA GPU' "$root/dev" test-gpu
check "missing packages are named" names_missing_packages
exit $((failures > 0))
