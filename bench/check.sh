#!/usr/bin/env bash
# What a compiler does not see: format, vet, lint, determinism of workflows, generated files, race, module files.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
echo "== format"
bad=$(gofmt -l $(git ls-files '*.go'))
[ -z "$bad" ] || { echo "gofmt: $bad" >&2; exit 1; }
echo "== vet"
go vet ./...
echo "== other platforms compile"
GOARCH=arm64 go vet ./tensor/... ./lm/...
echo "== staticcheck"
# The Temporal server behind these would be analysed from source for many minutes: vet must do for them.
# shellcheck disable=SC2046
go tool -modfile=tools/go.mod staticcheck $(go list ./... | grep -vE '/testenv/(temporalserver|stack)$|/cmd/character$')
echo "== workflowcheck"
go tool -modfile=tools/go.mod workflowcheck -config tools/workflowcheck.yml ./workflows
echo "== generated assembly is what the generator writes"
make generate
git diff --exit-code -- tensor/internal/cpu
echo "== known vulnerabilities in what is linked"
SCAN=package ./bench/vulncheck.sh || [ $? -eq 2 ] # 2: the database is out of reach, and it said so
echo "== reference pages are what the code says"
make docs
git diff --exit-code -- docs/reference
echo "== race on what runs concurrently"
CHARACTER_REQUIRE= CGO_ENABLED=1 go test -race -short ./store ./teacher ./heartbeat ./tensor ./lm/sample
echo "check: all passed"
