#!/usr/bin/env bash
# Runs commands of the README in a bare Debian, in a folder made by debootstrap, and says how long each one takes.
#
#   tests/bare_debian.sh RELEASE FOLDER [COMMAND ...]
#
#   tests/bare_debian.sh bookworm /tmp/debian12
#   tests/bare_debian.sh trixie /tmp/debian13 "make quickstart" "source .venv/bin/activate && nni-proxyless doctor"
#
# RELEASE is Debian's name: bookworm (Debian 12, Python 3.11), trixie (Debian 13, Python 3.13) or sid.
# FOLDER is made if it does not exist, and kept, so that further commands need no new installation. It takes 0.3 GB,
# and 7 GB more after the first command. Each COMMAND runs in /work there, in a copy of this checkout. By default, the
# only command is `make quickstart`.
#
# It needs root, debootstrap and Debian's archive. The folder gets what Debian's minimal system lacks: certificates,
# make, python3-venv, procps, without which `nnictl stop` fails, and /etc/hosts, without which NNI does not find its
# manager. pip's settings here hold there too, and the folders that they name are visible there. All processes end with
# the script.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '4,7s/^# *//p' "$0" >&2; exit 2; }
release=$1 folder=$(realpath -m "$2"); shift 2
[ $# -gt 0 ] || set -- "make quickstart"
here=$(cd "$(dirname "$0")/.." && pwd)
[ "$(id -u)" = 0 ] || { echo "bare_debian.sh: needs root, for chroot" >&2; exit 2; }

seconds() { # NAME COMMAND...: runs the command, and says how long it took
  local name=$1 begin=$SECONDS code=0; shift
  "$@" || code=$?
  echo "== $release: $name: $((SECONDS - begin)) s, exit code $code"
  return $code
}

if [ ! -e "$folder/etc/os-release" ]; then
  command -v debootstrap >/dev/null || { echo "bare_debian.sh: needs debootstrap" >&2; exit 2; }
  said=$(mktemp)
  seconds "debootstrap" debootstrap --variant=minbase --include=ca-certificates "$release" "$folder" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$said" 2>&1 || { tail -5 "$said" >&2; exit 1; }
  rm -f "$said"
fi
if ! chroot "$folder" sh -c 'command -v make && test -x /usr/bin/kill && python3 -c "import ensurepip"' >/dev/null 2>&1; then
  seconds "apt-get install make python3-venv procps" chroot "$folder" env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends make python3-venv procps' >/dev/null 2>&1
fi

[ -e "$folder/etc/hosts" ] || echo "127.0.0.1 localhost" >"$folder/etc/hosts"

# A fresh copy of what git knows; the environment of earlier commands stays.
mkdir -p "$folder/work"
find "$folder/work" -mindepth 1 -maxdepth 1 ! -name .venv ! -name results -exec rm -rf {} +
(cd "$here" && git ls-files -z --cached --others --exclude-standard | grep -zvxF .venv | tar --null --ignore-failed-read -cf - -T -) |
  tar -xf - -C "$folder/work"

# pip's settings, as variables, and the folders and files that they name.
settings=$(python3 -m pip config list 2>/dev/null | sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2=\3/p")
variables=() shared=()
while IFS='=' read -r key value; do
  [ -n "$key" ] && variables+=("PIP_$(echo "$key" | tr 'a-z-' 'A-Z_')=$value")
  for word in $value; do
    [[ $word = file://* ]] && word=$(dirname "${word#file://}") # an index, and the files beside it
    if [[ $word = /* && -e $word ]]; then shared+=("$(realpath "$word")"); fi
  done
done <<<"$settings"

cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
status=0
for command in "$@"; do
  # Namespaces of mounts and processes: both are gone when the command has ended.
  seconds "$command" unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
    folder=$1 command=$2 number=$3; shift 3
    variables=("${@:1:number}"); shift "$number"
    mount --make-rprivate /
    mount -t proc proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    for path in "$@"; do
      if [ -d "$path" ]; then mkdir -p "$folder$path"
      else mkdir -p "$(dirname "$folder$path")"; touch "$folder$path"; fi
      mount --bind "$path" "$folder$path"
    done
    exec chroot "$folder" env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
      PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${variables[@]}" bash -c "cd /work && $command; exit \$?" # bash stays, and reaps what processes leave behind
  ' bash "$folder" "$command" "${#variables[@]}" "${variables[@]}" "${shared[@]}" </dev/null || status=1
done
exit $status
