# opencharacter: the two commands a newcomer needs are `make test` and `make demo`.
export CGO_ENABLED := 0
GO ?= go
BIN := bin/character
TEACHER ?= local
CHARACTER ?= captain
DATA ?= .character
ID ?= $(CHARACTER)
MODEL ?= smollm2-135m-instruct
HOURS ?= 0.5
N ?= 50
SEED ?= 1
JOBS ?= 1
CHAOS ?=

.PHONY: help test unit fuzz demo build soak chaos screenshots idle check vulncheck generate docs clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: $(BIN) ## build the one binary
.PHONY: $(BIN)
$(BIN):
	@mkdir -p bin
	@echo "Building $(BIN) (the first time takes minutes: a whole Temporal server is inside)"
	@$(GO) build -ldflags='-s -w' -o $(BIN) ./cmd/character

demo: build ## from a constitution to a trained character on a real model
	@CHARACTER=$(CHARACTER) TEACHER=$(TEACHER) DATA=$(DATA) ID=$(ID) MODEL=$(MODEL) ./bench/demo.sh

test: ## all tests; sets itself up
	@./bench/test.sh

unit: ## quick tests only: no server, no model; from an empty build cache about a minute of building
	@./bench/unit.sh

fuzz: ## every parser against N inputs (N=1000000 LIMIT=seconds a target, ONLY=regex); goes on where the last one stopped
	@./bench/fuzz.sh

soak: build ## the tiny run again and again for HOURS=0.5; fails when memory or open files grow without end
	@$(GO) run ./bench/soak -hours $(HOURS) -binary $(BIN)

chaos: build ## kill, stop and starve N=50 whole tiny runs at random (SEED=1 JOBS=1), and compare every byte
	@$(GO) build -o bin/chaos ./bench/chaos
	@bin/chaos -exe $(BIN) -n $(N) -seed $(SEED) -jobs $(JOBS) $(CHAOS)

screenshots: build ## take the README's pictures anew, of a tiny run in a real browser (bench/setup_browser.sh installs one)
	@CHARACTER_TEST_BINARY=$(CURDIR)/$(BIN) CHARACTER_SCREENSHOTS=$(CURDIR)/docs/images CHARACTER_REQUIRE=chromium $(GO) test -count=1 -run TestScreenshots ./cmd/character

idle: build ## memory of an idle `character up`, with and without a worker (two minutes)
	@./bench/idle.sh $(BIN)

check: ## vet, lint, workflow determinism, generated files
	@./bench/check.sh

vulncheck: ## known vulnerabilities in what is called; needs the vulnerability database (network, or GOVULNDB)
	@./bench/vulncheck.sh

generate: ## regenerate assembly
	@cd tensor/internal/cpu/_asm && $(GO) run . -out ..

docs: ## write the reference pages of the code again
	@$(GO) test ./spec -count=1 -run 'TestReference$$' -update >/dev/null
	@$(GO) test ./cmd/character -count=1 -run 'TestFlagReference$$' -update >/dev/null

clean: ## remove what was built (not the data)
	@rm -rf bin
