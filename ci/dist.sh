#!/bin/bash
# Packs what `make install` installs into FOLDER/peerdma-VERSION-x86_64-linux.tar.gz, with SHA256SUMS beside it. The
# same commit gives the same archive of the same program. Needs `make build manual`.
#
#   ci/dist.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p "$1"
read -r _ version < <(target/peerdma --version)
name=peerdma-$version-x86_64-linux
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
ci/install-files.sh "$stage/$name" >/dev/null
# Inside as well: what was unpacked can be checked later.
(cd "$stage/$name" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum >"$stage/sums")
mv "$stage/sums" "$stage/$name/SHA256SUMS"
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar --create --sort=name --mtime="@$when" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
    --directory="$stage" "$name" | gzip -9n >"$1/$name.tar.gz"
(cd "$1" && sha256sum "$name.tar.gz" >SHA256SUMS)
echo "$1/$name.tar.gz"
