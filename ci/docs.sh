#!/bin/sh
# The documentation: checks its links, then builds the site with mdbook. Without mdbook it says SKIP, and the links have
# been checked all the same.
#
#   ci/docs.sh OUT [VERSION]    VERSION is the mdbook that the project builds with
set -eu

cd "$(dirname "$0")/.."
mkdir -p "$1"
out=$(cd "$1" && pwd)
wanted=${2:-}

ci/links.sh
echo "links: every one leads somewhere"
if ! found=$(mdbook --version 2>/dev/null); then
    echo "book: SKIP: mdbook is not installed (make tools installs it)"
    exit 0
fi
if [ -n "$wanted" ] && [ "${found#mdbook v}" != "$wanted" ]; then
    echo "book: note: this is $found, the project builds with $wanted"
fi
mdbook build docs --dest-dir "$out"
echo "book: $out/index.html"
