#!/bin/sh
# Checks the links between our own documents: every relative link in a *.md leads to a file or folder, and its anchor to
# a heading. A page of docs/ links to nothing outside docs/, because the book cannot follow it there, and docs/SUMMARY.md
# lists every page. Every docs/PAGE.md that a source names exists. Links to the web are not looked at.
#
#   ci/links.sh [FOLDER]    the tree in FOLDER instead of this one
set -eu

cd "${1:-$(dirname "$0")/..}"
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find . \( -name target -o -name .git -o -name node_modules \) -prune -o -print | sed 's,^\./,,' >"$list"

status=0
# shellcheck disable=SC2046 # our own documents have no blanks in their names
awk -v list="$list" '
BEGIN {
    while ((getline path < list) > 0) exists[path] = 1
    close(list)
    exists["."] = 1
}

function report(text) {
    print place ": " text
    bad = 1
}

# a/b/../c is a/c; empty for what leaves the tree.
function normal(path,    parts, count, i, kept, result) {
    count = split(path, parts, "/")
    kept = 0
    for (i = 1; i <= count; i++) {
        if (parts[i] == "" || parts[i] == ".") continue
        if (parts[i] == "..") {
            if (kept == 0) return ""
            kept--
        } else {
            stack[++kept] = parts[i]
        }
    }
    result = ""
    for (i = 1; i <= kept; i++) result = result (i > 1 ? "/" : "") stack[i]
    return result == "" ? "." : result
}

# The anchor of a heading, as GitHub and mdbook make it.
function slug(text) {
    gsub(/\]\([^)]*\)/, "", text)
    text = tolower(text)
    gsub(/[^a-z0-9 _-]/, "", text)
    gsub(/ /, "-", text)
    return text
}

function remember(target) {
    links++
    from[links] = FILENAME
    line[links] = FNR
    to[links] = target
}

FNR == 1 { fenced = 0 }
/^ *(```|~~~)/ { fenced = !fenced; next }
fenced { next }
/^#+ / {
    heading = $0
    sub(/^#+ +/, "", heading)
    sub(/ +#* *$/, "", heading)
    anchor = slug(heading)
    if ((FILENAME, anchor) in anchors) anchor = anchor "-" ++repeated[FILENAME, anchor]
    anchors[FILENAME, anchor] = 1
}
{
    text = $0
    gsub(/`[^`]*`/, "", text)
    if (match(text, /^ *\[[^]]+\]: +[^ ]+/)) {
        reference = substr(text, RSTART, RLENGTH)
        sub(/^ *\[[^]]+\]: +/, "", reference)
        remember(reference)
    }
    while (match(text, /\]\([^)]*\)/)) {
        target = substr(text, RSTART + 2, RLENGTH - 3)
        text = substr(text, RSTART + RLENGTH)
        sub(/ +".*"$/, "", target)
        remember(target)
    }
}

END {
    for (i = 1; i <= links; i++) {
        target = to[i]
        place = from[i] ":" line[i]
        if (target ~ /^[a-z][a-z0-9+.-]*:/) continue
        file = target
        anchor = ""
        if ((at = index(target, "#")) > 0) {
            file = substr(target, 1, at - 1)
            anchor = substr(target, at + 1)
        }
        folder = from[i]
        if (!sub(/\/[^\/]*$/, "", folder)) folder = "."
        path = file == "" ? from[i] : normal(folder "/" file)
        if (path == "" || !(path in exists)) {
            report("broken link " target)
            continue
        }
        if (from[i] ~ /^docs\// && path !~ /^docs\//) report("link " target " leads out of docs/")
        if (anchor != "" && !((path, anchor) in anchors)) report("no heading for " target)
        if (from[i] == "docs/SUMMARY.md") listed[path] = 1
    }
    for (path in exists) {
        if (path ~ /^docs\/.*\.md$/ && path != "docs/SUMMARY.md" && !(path in listed)) {
            place = path
            report("not in docs/SUMMARY.md")
        }
    }
    exit bad
}
' $(grep '\.md$' "$list") || status=1

# What sources and scripts say of the documents.
for page in $(grep -E '\.(rs|c|h|sh|toml|yml)$' "$list" | xargs grep -hoE 'docs/[a-z-]+\.md' /dev/null | sort -u); do
    [ -e "$page" ] || {
        echo "$page: named by a source, and not there:"
        grep -E '\.(rs|c|h|sh|toml|yml)$' "$list" | xargs grep -n "$page" /dev/null | sed 's/^/    /'
        status=1
    }
done
exit $status
