#!/bin/sh
# Which modules may use which, inside the crates where cargo cannot see it. A line of LAYERS: a folder or a file,
# and the modules of its own crate that it may name besides itself.
#
#   ci/layers.sh [FOLDER]    the tree in FOLDER instead of this one
set -eu

cd "${1:-$(dirname "$0")/..}"
status=0
while read -r folder allowed; do
    own=${folder##*/src/}
    own=${own%.rs}
    top=$folder
    [ ! -d "$folder" ] || top=$folder/mod.rs
    [ -e "$folder" ] || {
        echo "layers: $folder is missing"
        status=1
        continue
    }
    pattern=$(echo "$own $allowed" | tr ' ' '|')
    # Inside the folder `super::super::` could lead out, too: nothing needs it. Comments may link anywhere.
    hits=$(grep -rHnE --include='*.rs' 'crate::[a-z_]+|crate::\{' "$folder" | grep -vE ':[0-9]+: *//' |
        grep -vE "crate::($pattern)([^a-z_]|\$)" || true)
    out=$(grep -nE '^(use|pub use) super::' "$top" || true)
    if [ -n "$hits$out" ]; then
        printf '%s\n' "$hits" "$out" | sed -e '/^$/d' -e "s,^,layers: $own must not use this: ,"
        status=1
    fi
done <<'LAYERS'
vmm/suite/src/host
vmm/suite/src/report
guest-driver/agent/src/cases device exit ktap partner sys uapi vmm
guest-driver/agent/src/ktap.rs vmm
guest-driver/agent/src/vmm device
guest-driver/agent/src/partner device sys uapi
guest-driver/agent/src/device sys uapi
guest-driver/agent/src/exit.rs
guest-driver/agent/src/sys
guest-driver/agent/src/uapi
LAYERS
[ $status != 0 ] || echo "layers: clean"
exit $status
