#!/usr/bin/env bash
# Writes the generated files, or with --check says which of them are not current. One line a file: path, command.
set -euo pipefail
cd "$(dirname "$0")/.."
stale=0

file() {
    local path=$1
    shift
    if [[ ${check:-} ]]; then
        if ! "$@" | cmp -s - "$path"; then
            printf '%s is not what `%s` prints; run: make generate\n' "$path" "${*#.venv/bin/}" >&2
            stale=1
        fi
    else
        "$@" >"$path.new"
        mv "$path.new" "$path"
    fi
}

[[ ${1:-} == --check ]] && check=1
file page/src/messages.ts .venv/bin/python -m bridge.web.messages
file config.example.yaml .venv/bin/python -m bridge.config example
file docs/configuration.md .venv/bin/python -m bridge.config markdown
exit $stale
