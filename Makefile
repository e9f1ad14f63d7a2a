# SPDX-License-Identifier: Apache-2.0

GO ?= go
# How long each fuzz target runs, and what is measured.
FUZZTIME ?= 5s
BENCH ?= .

# Tools run through `go run`, at these versions. golangci-lint carries the same
# gofumpt.
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

PLATFORMS := linux/amd64 linux/arm64 linux/riscv64 darwin/arm64

# Where git is missing, or does not trust this folder, the version in the
# programs names no commit; without this the go command would refuse to build.
ifneq ($(shell git rev-parse --git-dir >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

# The race detector needs a C compiler.
HAVE_CC := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)

.DEFAULT_GOAL := build
# Tests measure memory and time: one thing at a time.
.NOTPARALLEL:

##@ Use

.PHONY: build
build: ## build bin/disdel and bin/disdel-worker (default)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/ ./cmd/...

.PHONY: install
install: ## install both programs into Go's bin folder
	CGO_ENABLED=0 $(GO) install -trimpath -ldflags "-s -w" ./cmd/...

.PHONY: demo
demo: build ## build, then train on the built-in data set digits
	bin/disdel train digits

##@ Check

.PHONY: check
check: check-fmt vet check-tidy check-docs check-asm cross lint test $(if $(HAVE_CC),race,race-note) ## all that CI checks
	@echo "check: all passed"

.PHONY: test
test: ## run the tests
	$(GO) test -timeout 30m ./...

.PHONY: race
race: ## run the tests under the race detector, those of other programs left out (needs a C compiler)
	DISDEL_E2E= CGO_ENABLED=1 $(GO) test -race -timeout 30m ./...

.PHONY: race-note
race-note:
	@echo "check: there is no C compiler, so the tests did not run under the race detector (apt-get install gcc libc6-dev)"

.PHONY: vet
vet: ## run go vet
	$(GO) vet ./...

.PHONY: lint
lint: ## run golangci-lint (the first time it is compiled, which takes minutes)
	CGO_ENABLED=0 $(GO) run $(GOLANGCI_LINT) run

.PHONY: cross
cross: ## compile for every supported system
	@for platform in $(PLATFORMS); do \
		echo "build $$platform"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GO) build ./... || exit 1; \
	done

.PHONY: check-fmt
check-fmt:
	@files=$$($(GO) run $(GOFUMPT) -l cmd internal) || exit 1; \
	if [ -n "$$files" ]; then echo "not formatted; run: make fmt"; echo "$$files"; exit 1; fi

.PHONY: check-tidy
check-tidy:
	$(GO) mod tidy -diff

.PHONY: check-docs
check-docs:
	@fresh=$$(mktemp -d) || exit 1; trap 'rm -rf "$$fresh"' EXIT; \
	$(GO) run ./internal/cli/gendocs "$$fresh" || exit 1; \
	diff -r docs/cli "$$fresh" || { echo "docs/cli is out of date; run: make docs"; exit 1; }

.PHONY: check-asm
check-asm: # the assembly is what its generator writes, and the tests hold without it
	@fresh=$$(mktemp) || exit 1; trap 'rm -f "$$fresh"' EXIT; \
	for form in avx2:fma_amd64.s avx512:fma512_amd64.s neon:gemm_arm64.s; do \
		$(GO) run ./internal/nn/kernel/_gen -form "$${form%:*}" -out "$$fresh" || exit 1; \
		diff "internal/nn/kernel/$${form#*:}" "$$fresh" || { echo "the assembly is out of date; run: go generate ./internal/nn/kernel"; exit 1; }; \
	done
	$(GO) test -tags noasm ./internal/nn/kernel

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (5s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' internal | while IFS=: read -r file func; do \
		name=$${func#func }; echo "$$name in $${file%/*}"; \
		$(GO) test "./$${file%/*}" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) || exit 1; \
	done

.PHONY: bench
bench: ## run the benchmarks that match BENCH (all)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

##@ Change

.PHONY: fmt
fmt: ## format the code
	$(GO) run $(GOFUMPT) -w cmd internal

.PHONY: docs
docs: ## write docs/cli anew from the command tree
	rm -rf docs/cli
	$(GO) generate ./internal/cli

.PHONY: clean
clean: ## remove what build made
	rm -rf bin

.PHONY: help
help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
