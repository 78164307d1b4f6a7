# Everything a contributor needs; `make` lists it. Nothing but Go, make and git
# is assumed.

GO    ?= go
BIN   := bin
TOOLS := $(BIN)/tools

PLUGIN := vault-plugin-secrets-apikeys

# Every package of the repository: the workspace holds two modules.
PACKAGES := ./... ./bootstrap/sdk/...

# A plugin is run by whatever system the server runs on, so it depends on
# nothing there, and the same source gives the same bytes. A VERSION in the environment
# is somebody else's.
BUILDFLAGS := -trimpath $(if $(filter command%,$(origin VERSION)),-ldflags=-X=github.com/vault-apikeys/$(PLUGIN)/internal/version.Version=$(VERSION))

BENCH    ?= .
FUZZTIME ?= 30s
SDK      ?= bootstrap

SIM_WORLDS ?= 20
SIM_FROM   ?= 1

# What the tests are held against: the files of backend that keep its promises, or all
# of another package.
MUTATE_PKG   ?= ./backend
MUTATE_FILES ?= $(if $(filter ./backend,$(MUTATE_PKG)),^(role|tick|tidy|job|verify|key)[_.])
MUTATE_N     ?= 200
MUTATE_SEED  ?= 1
MUTATE_MIN   ?= 90

# Commands take over the variables that they read; so does a recipe's shell.
export GO BUILDFLAGS FUZZTIME

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: need-go ## Build the plugin, the development server and apikeys into bin/ (VERSION=v1.2.3; SDK=upstream: against the official SDK)
ifeq ($(SDK),upstream)
	@scripts/build-upstream.sh ./cmd/$(PLUGIN) ./cmd/devserver ./cmd/apikeys
else ifeq ($(SDK),bootstrap)
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o $(BIN)/ ./cmd/$(PLUGIN) ./cmd/devserver ./cmd/apikeys
else
	@echo "SDK=$(SDK): bootstrap (the one in this repository) or upstream (the official one)" >&2; exit 1
endif

.PHONY: release
release: need-go ## Build a release into dist/VERSION, of a clean and tagged commit (VERSION=v1.2.3; PLATFORMS="linux/amd64 …"; SDK=upstream)
	@PLATFORMS="$(PLATFORMS)" SDK="$(SDK)" scripts/release.sh "$(if $(filter command%,$(origin VERSION)),$(VERSION))"

.PHONY: release-check
release-check: need-go ## Build a release of HEAD twice, in two folders, and compare the bytes (PLATFORMS=all: not for linux/amd64 alone)
	@PLATFORMS="$(PLATFORMS)" scripts/release-check.sh

.PHONY: dev
dev: build ## Run a development server with the engine at apikeys/ (VAULT_BIN=vault|bao|path: that real server)
	@if [ -n "$(VAULT_BIN)" ]; then exec scripts/dev-real.sh "$(VAULT_BIN)"; else exec scripts/dev.sh; fi

.PHONY: demo
demo: build ## Watch a key being issued, rotated and revoked, and an API go on while the server is away, in under a minute
	@CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o $(BIN)/demo ./scripts/demo
	@$(BIN)/demo

.PHONY: test
test: need-go ## Run all tests with the race detector
	@scripts/test.sh $(PACKAGES)
	@$(MAKE) --no-print-directory test-gitleaks test-kubernetes test-webhooks test-release

# A module of its own and outside the workspace, so that the scanner's
# requirements stay out of the plugin's.
.PHONY: test-gitleaks
test-gitleaks: need-go ## Hold the rules that key-format serves against the real gitleaks
	@GOWORK=off $(GO) -C acceptance/gitleaks test -timeout 5m ./...

# Likewise, for Kubernetes' own types.
.PHONY: test-kubernetes
test-kubernetes: need-go ## Hold the manifests and pipelines of bootstrap against the rules of their readers
	@GOWORK=off $(GO) -C acceptance/kubernetes test -timeout 5m ./...

# Another one: those who read what the engine sends.
.PHONY: test-webhooks
test-webhooks: need-go ## Hold what endpoints are sent against the libraries of Standard Webhooks and CloudEvents
	@GOWORK=off $(GO) -C acceptance/webhooks test -timeout 5m ./...

# And for what makes bills of materials, images and packages.
.PHONY: test-release
test-release: need-go ## Hold images, packages, bills of materials and licences of a release to what their readers need
	@GOWORK=off $(GO) -C scripts/release test -timeout 10m -skip '^TestOpenBao' ./...

# Another module, for Caddy's sake.
.PHONY: gateways
gateways: need-go ## Hold the edge behind nginx, HAProxy, Caddy and stand-ins, for three minutes (TRAEFIK_BIN=path: a real Traefik; SERVER_BIN=path: a cluster's failover)
	@[ -n "$(TRAEFIK_BIN)" ] || echo "TRAEFIK_BIN is not set: a proxy that asks as Traefik does stands in for it"
	@[ -n "$(SERVER_BIN)" ] || echo "SERVER_BIN names no Vault or OpenBao: no failover is played"
	@GOWORK=off $(GO) -C acceptance/gateways test -count=1 -timeout 20m ./...

.PHONY: bench-gateways
bench-gateways: need-go ## Measure an edge behind gateways (BENCH=Nginx)
	@GOWORK=off $(GO) -C acceptance/gateways test -run '^$$' -bench '$(BENCH)' -benchtime 200x -timeout 20m ./...

.PHONY: acceptance
acceptance: need-server build ## Run the acceptance tests on a real server: SERVER_BIN=<vault or bao> (TERRAFORM_BIN=<terraform or tofu> PROVIDER_BIN=<hashicorp/vault>: the module, too; RUN=regexp); needs Chromium (CHROME_BIN=path), Prometheus and Alertmanager
	@TERRAFORM_BIN="$(TERRAFORM_BIN)" PROVIDER_BIN="$(PROVIDER_BIN)" scripts/acceptance.sh "$(SERVER_BIN)" "$(RUN)"
	@[ -n "$(RUN)" ] || $(MAKE) --no-print-directory browser monitoring oci

.PHONY: oci
oci: need-server need-go ## Have an OpenBao, 2.5 or later, download the plugin from a registry: SERVER_BIN=<bao>
	@scripts/oci.sh "$(SERVER_BIN)"

# Another module, for what drives a browser.
.PHONY: browser
browser: need-go ## Look at the page of apikeys fleet with Chromium (CHROME_BIN=path; SHOTS=directory: keep the pictures)
	@GOWORK=off $(GO) -C acceptance/browser test -count=1 -timeout 15m ./...

.PHONY: monitoring
monitoring: need-go ## Hold alerts and dashboard to a real Prometheus that scrapes engine, edge and proxy (SERVER_BIN=path: behind it, too; SHOTS=directory: keep the picture)
	@scripts/monitoring.sh "$(SERVER_BIN)"

.PHONY: lint
lint: need-go tools ## Check formatting, code, imports, modules and tree
	@scripts/lint.sh

.PHONY: fmt
fmt: need-go tools ## Format all Go and HCL files
	@scripts/gofiles.sh | xargs $(TOOLS)/gofumpt -w
	@scripts/hclfiles.sh | xargs $(GO) run ./scripts/hclfmt -w

.PHONY: fmtcheck
fmtcheck: need-go tools ## Fail if a Go or HCL file is not formatted
	@scripts/fmtcheck.sh

.PHONY: tidy
tidy: need-go ## Tidy the go.mod files without asking for the official SDK
	@scripts/tidy.sh

.PHONY: bench
bench: need-go ## Run the benchmarks (BENCH=regexp, BENCH_SIZES=1000,10000: numbers of roles)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

.PHONY: bench-scan
bench-scan: need-go ## Let apikeys scan and the real gitleaks go through the same tree in turn
	@GOWORK=off $(GO) -C acceptance/gitleaks test -run '^$$' -bench Scan -benchtime 3x -timeout 60m ./...

.PHONY: fuzz
fuzz: need-go ## Run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz.sh

.PHONY: simulate
simulate: need-go ## Play SIM_WORLDS (20) worlds with edges and as many with consumers against the real backend (SIM_FROM=1: the first seed)
	$(GO) test -count=1 -timeout 120m -run '^(TestEdgesAgreeWithTheEngine|TestConsumersHoldNoDeadKey)$$' ./backend -worlds $(SIM_WORLDS) -worldfrom $(SIM_FROM) -clientworlds $(SIM_WORLDS) -clientfrom $(SIM_FROM)

.PHONY: mutate
mutate: need-go ## Change the code in small ways and see whether tests notice (MUTATE_FILES=regexp, MUTATE_N=200, MUTATE_SEED=1)
	@$(GO) build $(BUILDFLAGS) -o $(BIN)/ ./scripts/mutate
	@$(BIN)/mutate -pkg '$(MUTATE_PKG)' -files '$(MUTATE_FILES)' -n '$(MUTATE_N)' -seed '$(MUTATE_SEED)' -min '$(MUTATE_MIN)' \
		-cache $(BIN)/mutate.cache $(MUTATE_FLAGS)

.PHONY: cover
cover: need-go ## Measure test coverage into cover.out and cover.html
	$(GO) test -coverprofile=cover.out -coverpkg=./... $(PACKAGES)
	$(GO) tool cover -html=cover.out -o cover.html
	@$(GO) tool cover -func=cover.out | tail -1

# The modules below acceptance and scripts are no part of the workspace, so each is a run of its own. The
# linters read this source only.
.PHONY: vuln
vuln: need-go $(TOOLS)/govulncheck ## Look for known vulnerabilities (needs the network)
	@failed=0; \
	$(TOOLS)/govulncheck -test $(PACKAGES) || failed=1; \
	for m in acceptance/gitleaks acceptance/gateways acceptance/browser acceptance/kubernetes acceptance/webhooks scripts/release; do \
		GOWORK=off $(TOOLS)/govulncheck -C $$m -test ./... || failed=1; done; \
	exit $$failed

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf $(BIN) dist cover.out cover.html

.PHONY: tools
tools: $(TOOLS)/.built

# GOWORK=off: the tools are a module of their own, whose requirements must not
# mix with the plugin's.
$(TOOLS)/.built: tools/go.mod tools/go.sum
	@echo "building the linters (once; takes a few minutes)"
	@GOWORK=off $(GO) build -C tools -trimpath -o ../$(TOOLS)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt
	@touch $@

$(TOOLS)/govulncheck: tools/go.mod tools/go.sum
	@GOWORK=off $(GO) build -C tools -trimpath -o ../$(TOOLS)/ golang.org/x/vuln/cmd/govulncheck
	@touch $@

.PHONY: need-server
need-server:
	@[ -n "$(SERVER_BIN)" ] || { echo "which server? make acceptance SERVER_BIN=<vault, bao or a path to one of them>" >&2; exit 1; }

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null || { echo "$(GO): not found. Go 1.26 or later is needed: https://go.dev/dl/" >&2; exit 1; }
