#!/bin/bash
# Reads a guest as if it were a real machine: for each preset the guest's own `peerdma machine capture`, `lspci -vvv`
# and `lspci -xxxx` must lead to the map types and distances that are explained from the topology.
#
# usage: dumps.sh [PRESET...]
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in lspci python3; do
    command -v "$tool" >/dev/null || {
        echo "dumps: SKIP: $tool is not installed"
        exit 0
    }
done
peerdma=target/peerdma
out=${OUT:-target/vm-dumps}
mkdir -p "$out"
presets=("$@")
if [ ${#presets[@]} = 0 ]; then
    mapfile -t presets < <("$peerdma" topology --list 2>/dev/null | cut -d' ' -f1)
fi
cat >"$out/dump" <<'EOF'
#!/bin/sh
echo BEGIN capture
peerdma machine capture 2>/dev/null
echo END
echo BEGIN vvv
lspci -D -nn -vvv
echo END
echo BEGIN xxxx
lspci -D -xxxx
echo END
EOF
chmod +x "$out/dump"
failed=0
for preset in "${presets[@]}"; do
    "$peerdma" test --topology "$preset" --file "$peerdma" --file "$(command -v lspci)" --file "$out/dump" \
        --out "$out/$preset" -- dump >"$out/$preset.log" 2>&1 || {
        echo "dumps: $preset: the guest failed"
        tail -n 5 "$out/$preset.log"
        failed=1
        continue
    }
    "$peerdma" explain --all --topology "$preset" --json >"$out/$preset.json" 2>/dev/null
    python3 ci/dumps.py "$peerdma" "$out" "$preset" || failed=1
done
exit "$failed"
