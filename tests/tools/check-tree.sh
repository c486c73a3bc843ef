#!/usr/bin/env bash
# Checks every file of the repository for faults that no compiler finds: files with more than one idea, leftovers of work
# in progress, keys, text that is true on one machine only, rows of pages that no test proves, and imports against the
# layers; and lints the scripts and the Go code.
#
# usage: check-tree.sh
. "$(dirname -- "$0")/lib.sh"

readonly CODE_LINES=400 TEST_LINES=700

failed=0
passed=0

# verdict WHAT PROBLEMS: one line for a check, and a line for each problem.
verdict() {
    if [[ $2 == "" ]]; then
        say "  ok      $1"
        passed=$((passed + 1))
    else
        say "  FAILED  $1"
        say "            ${2//$'\n'/$'\n'            }"
        failed=$((failed + 1))
    fi
}

# What is in the repository or about to be; a deleted file is still listed until it is committed.
files() {
    git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r file; do
        [[ ! -f $file ]] || printf '%s\n' "$file"
    done
}

# found PATTERN FILES...: lines that match. The patterns are written so that they do not match themselves.
found() {
    local pattern=$1
    shift
    files "$@" | xargs -d '\n' -r grep -nEI -e "$pattern" -- || true
}

too_long() {
    local file lines limit
    files '*.rs' '*.sh' '*.py' '*.go' | while read -r file; do
        limit=$CODE_LINES
        [[ ! $file =~ (^|/)tests?(/|\.rs$|_) ]] || limit=$TEST_LINES
        lines=$(wc -l <"$file")
        ((lines <= limit)) || say "$file: $lines lines, at most $limit"
    done
}

not_executable() {
    files '*.sh' .ci/run | while read -r file; do
        [[ $file == tests/tools/lib.sh || -x $file ]] || say "$file"
    done
}

# The tests of the tree, by the name of their function; those of both versions of CSI are listed in both!(…).
tests() {
    files '*.rs' | xargs -d '\n' cat | awk '
        sub(/^both!\(/, "") { both = 1 }
        both {
            line = $0
            while (match(line, /[a-z0-9_]+/)) {
                print substr(line, RSTART, RLENGTH)
                line = substr(line, RSTART + RLENGTH)
            }
            if (/\);/) both = 0
        }
        /#\[(tokio::)?test/ { test = 1 }
        test && match($0, /fn [a-z0-9_]+/) { print substr($0, RSTART + 3, RLENGTH - 3); test = 0 }' | sort -u
}

# unproved PAGE: rows of a page of docs/ whose last cell does not name tests that exist. What comes before its first
# section explains.
unproved() {
    awk -F '|' '
        FILENAME == "-" { known[$0] = 1; next }
        /^## / { section = $0 }
        section == "" || !/^\|/ || /^\|---/ || / test \|$/ { next }
        {
            rows += 1
            proved = 0
            cell = $(NF - 1)
            while (match(cell, /`[^`]+`/)) {
                name = substr(cell, RSTART + 1, RLENGTH - 2)
                cell = substr(cell, RSTART + RLENGTH)
                proved += 1
                if (!(name in known)) print "line " FNR ": there is no test " name
            }
            if (!proved) print "line " FNR ": no test is named"
        }
        END { if (!rows) print "there is no row" }' - "$1" < <(tests)
}

go_code() {
    gofmt -l tests/tools/go 2>&1 || true
    local module packages
    for module in old new podsecurity; do
        packages=(.)
        [[ $module == podsecurity ]] || packages+=(flocker-csi.test/walkthrough)
        # Fetched first: the download messages of `go vet` on a fresh machine are not a fault of the code.
        (cd "tests/tools/go/$module" && go mod download && go vet "${packages[@]}") 2>&1 || true
    done
}

cd "$ROOT"
scripts=$(files '*.sh' .ci/run)
verdict "no file is longer than one idea" "$(too_long)"
verdict "nothing is left over" "$(found '\b(todo|unimplemented|dbg)!|\b(FIX[M]E|TOD[O]|XX[X]|HAC[K])\b|^(<<<<<<<|>>>>>>>) ' \
    '*.rs' '*.sh' '*.py' '*.go' '*.proto' '*.toml' Makefile)"
verdict "no private key" "$(found 'BEGIN ([A-Z]+ )?PRIVATE KE[Y]-----$')"
verdict "nothing is true on one machine only" "$(found '/wor[k]/|/roo[t]/|\.\./share[d]|GOPROX[Y]=|--index-ur[l]')"
for page in docs/failure-modes.md docs/from-mesos-module-flocker.md; do
    verdict "every row of $page names a test that exists" "$(unproved "$page")"
done
layers=$(python3 -B tests/tools/check_layers.py 2>&1) && { say "  $layers"; layers=; }
fields=$(python3 -B tests/tools/check_log_fields.py 2>&1) && { say "  $fields"; fields=; }
verdict "every field of the log is on its page, and no other" "$fields"
verdict "imports keep to the layers of ARCHITECTURE.md and form no circle" "$layers"
verdict "scripts can be executed" "$(not_executable)"
# With its own messages: a linter that cannot run is a failure.
verdict "shellcheck" "$(xargs -d '\n' shellcheck --format gcc <<<"$scripts" 2>&1 || true)"
verdict "gofmt and go vet" "$(go_code)"
say "$passed passed, $failed failed"
((failed == 0))
