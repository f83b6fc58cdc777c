#!/bin/sh
# Puts the program, its manual pages, completions, documents and licences below FOLDER: what `make install` and
# `make dist` have in common. Needs `make build manual`.
#
#   ci/install-files.sh FOLDER
set -eu

folder=$(realpath -m "$1")
cd "$(dirname "$0")/.."
install -D -m 755 target/peerdma "$folder/bin/peerdma"
(cd target/share && find . -type f) | while read -r file; do
    install -D -m 644 "target/share/$file" "$folder/share/${file#./}"
done
documents=$folder/share/doc/peerdma
for file in README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT LICENSES/README.md LICENSES/GPL-2.0-only.txt; do
    install -D -m 644 "$file" "$documents/$file"
done
echo "installed below $folder: $(cd "$folder" && "bin/peerdma" --version)"
