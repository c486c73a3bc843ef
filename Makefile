# The entry points for developers. Each target sets up what it needs, and skips what is already done.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Pinned: another version of csi-sanity has other specs, and tests/tools/csi-sanity.sh counts them.
CSI_SANITY_VERSION := v5.6.0
GRPCURL_VERSION := v1.9.4
HELM_VERSION := v3.22.0
HELM_DOCS_VERSION := v1.14.2
CARGO_FUZZ_VERSION := 0.13.1
CARGO_DENY_VERSION := 0.20.2
# The versions and hashes of Python packages are in tests/tools/requirements.txt.

# Under target/, so that git ignores it and a CI caches it together with the build.
export TOOLS := $(CURDIR)/target/tools
STAMPS := $(TOOLS)/stamps
PROGRAM := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/flocker-csi

# Only programs that mount run as root; builds run as the user.
ifneq ($(shell id -u),0)
SUDO := sudo
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export CARGO_TARGET_$(HOST)_RUNNER := sudo --preserve-env
endif

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-build build ## Shows the whole life of a volume on this machine and leaves nothing behind
	@echo "demo: $(PROGRAM) demo"
	@$(SUDO) $(PROGRAM) demo

.PHONY: test
test: setup tools ## Runs every test; PARTS="format clippy ..." runs only these, CSC=/path/to/csc adds the real csc
	@echo "test: tests/tools/test.sh $(PARTS)"
	@CSC="$(CSC)" tests/tools/test.sh $(PARTS)

.PHONY: soak
soak: setup-build build ## Runs 2,000 volume life cycles while plugins are killed, disks are full and Flocker fails; CYCLES=500 SEED=7 chooses others
	@echo "soak: SOAK_CYCLES=$(or $(CYCLES),2000) cargo test --locked --test integration -- model::soak"
	@SOAK_CYCLES=$(or $(CYCLES),2000) $(if $(SEED),SOAK_SEED=$(SEED)) cargo test --workspace --locked --test integration -- model::soak --nocapture
	@RACER_SECONDS=60 cargo test --workspace --locked --test attacks -- racer --nocapture

.PHONY: model
# No part of `make test`, which searches two failures in one course.
model: export PROTOCOL_KILLS := $(or $(KILLS),2)
model: export PROTOCOL_LOSSES := $(or $(LOSSES),2)
model: export PROTOCOL_OPERATIONS := $(or $(OPERATIONS),2)
model: setup-build ## Searches the model of the protocol with four failures in one course (about an hour); KILLS=2 LOSSES=1 searches less
	@echo "model: $(PROTOCOL_KILLS) kills, $(PROTOCOL_LOSSES) losses, $(PROTOCOL_OPERATIONS) operations"
	@cargo test --locked -p protocol-model --test exhaustive -- the_protocol_holds --nocapture --test-threads=1

.PHONY: pages
pages: setup-build ## Writes the manual pages and the completions for shells to target/pages
	@echo "pages: cargo run --locked --example pages $(CURDIR)/target/pages"
	@cargo run --quiet --locked --example pages $(CURDIR)/target/pages

.PHONY: bench
bench: setup-build ## Measures the figures of docs/benchmarks.md; ARGS="publish start" measures only these
	@echo "bench: cargo bench --locked --bench budgets -- $(ARGS)"
	@cargo bench --locked --bench budgets -- $(ARGS)

ROUNDS := 10
LENGTH := 3

.PHONY: bench-io
bench-io: setup tools $(STAMPS)/fio build ## Measures with fio how fast a volume is against a bare loop device; ROUNDS=4 LENGTH=1 is quicker
	@echo "bench-io: benches/io.sh $(ROUNDS) $(LENGTH)"
	@$(SUDO) benches/io.sh $(ROUNDS) $(LENGTH)

.PHONY: fuzz
fuzz: setup-fuzz $(STAMPS)/cargo-fuzz-$(CARGO_FUZZ_VERSION) ## Fuzzes the functions that read foreign bytes, a minute each; SECONDS=600 is longer, ONLY="answer ..." only these
	@echo "fuzz: tests/tools/fuzz.sh $(SECONDS) $(ONLY)"
	@tests/tools/fuzz.sh $(SECONDS) $(ONLY)

SECONDS := 60

.PHONY: advisories
# No part of `make test`: its result depends on what was published since, and it needs the network.
advisories: setup-build $(STAMPS)/cargo-deny-$(CARGO_DENY_VERSION) ## Looks for known vulnerabilities in the dependencies, and for yanked ones, with RustSec's database
	@echo "advisories: cargo-deny --locked check advisories"
	@$(TOOLS)/bin/cargo-deny --locked check advisories

IMAGE := localhost/flocker-csi
TAG := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: image
image: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
image: setup-image ## Builds the container image; IMAGE=registry.example.com/flocker-csi TAG=1 names it
	@echo "image: deploy/docker/program.sh, files.sh and image.sh, for $(IMAGE):$(TAG)"
	@deploy/docker/program.sh target/image
	@rm -rf target/image/files
	@deploy/docker/files.sh target/image/release/flocker-csi target/image/files
	@deploy/docker/image.sh target/image/files $(IMAGE):$(TAG) target/image/flocker-csi.oci.tar

KUBERNETES := $(CURDIR)/target/kubernetes

.PHONY: e2e-kubernetes
# No registry has this image, so no node tries to pull it.
e2e-kubernetes: IMAGE := registry.invalid/flocker-csi
e2e-kubernetes: setup-kubernetes image $(STAMPS)/helm-$(HELM_VERSION) ## Runs the plugin on a real Kubernetes on this machine; CHAPTERS="volumes power" runs only these
	@echo "e2e-kubernetes: tests/kubernetes/build.sh $(KUBERNETES)/bin"
	@tests/kubernetes/build.sh $(KUBERNETES)/bin
	@echo "e2e-kubernetes: tests/kubernetes/run.sh $(CHAPTERS)"
	@$(SUDO) tests/kubernetes/run.sh $(CHAPTERS)

.PHONY: e2e-postgres
e2e-postgres: setup tools build ## Runs PostgreSQL on a volume while plugin and database are killed under load, ten times for a minute; ROUNDS=2 SECONDS=10 chooses others
	@echo "e2e-postgres: tests/tools/postgres.sh $(ROUNDS) $(SECONDS)"
	@$(SUDO) tests/tools/postgres.sh $(ROUNDS) $(SECONDS)

.PHONY: build
# Together with an example, cargo builds the program with the features that tests need (tokio's test-util, whose clock
# tests can pause), and so from the crates that the tests are built from: no crate is built twice. Without an example,
# as in a release, the program is built without those features.
build: ## Builds the program that the demo and the tests run
	@echo "build: cargo build --locked --bin flocker-csi --example csc"
	@cargo build --locked --bin flocker-csi --example csc

.PHONY: setup-build
setup-build:
	@tests/tools/setup.sh build

.PHONY: setup-image
setup-image:
	@tests/tools/setup.sh image

.PHONY: setup-kubernetes
setup-kubernetes:
	@tests/tools/setup.sh kubernetes

.PHONY: setup-fuzz
setup-fuzz:
	@tests/tools/setup.sh fuzz

.PHONY: setup
setup: ## Installs the system packages that are missing
	@tests/tools/setup.sh test

.PHONY: tools
tools: $(STAMPS)/csi-sanity-$(CSI_SANITY_VERSION) $(STAMPS)/grpcurl-$(GRPCURL_VERSION) $(STAMPS)/prometheus $(STAMPS)/postgresql tools-chart ## Installs the test tools at their pinned versions
		@echo "tools: csi-sanity $(CSI_SANITY_VERSION), grpcurl $(GRPCURL_VERSION), helm $(HELM_VERSION), prometheus, PostgreSQL and the packages of the chart's tests are in $(TOOLS)"

.PHONY: tools-chart
tools-chart: $(STAMPS)/helm-$(HELM_VERSION) $(STAMPS)/helm-docs-$(HELM_DOCS_VERSION) $(STAMPS)/python $(TOOLS)/bin/podsecurity

# The name of a stamp contains a version, so a new version is installed and an installed one is not installed again.
define go_tool
	@echo "tools: installing $(1) $(2)"
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/$(1)-v*
	@GOBIN=$(TOOLS)/bin go install $(3)@$(2)
	@touch $@
endef

$(STAMPS)/csi-sanity-$(CSI_SANITY_VERSION):
	$(call go_tool,csi-sanity,$(CSI_SANITY_VERSION),github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)

$(STAMPS)/grpcurl-$(GRPCURL_VERSION):
	$(call go_tool,grpcurl,$(GRPCURL_VERSION),github.com/fullstorydev/grpcurl/cmd/grpcurl)

$(STAMPS)/helm-$(HELM_VERSION):
	$(call go_tool,helm,$(HELM_VERSION),helm.sh/helm/v3/cmd/helm)

$(STAMPS)/helm-docs-$(HELM_DOCS_VERSION):
	$(call go_tool,helm-docs,$(HELM_DOCS_VERSION),github.com/norwoodj/helm-docs/cmd/helm-docs)

$(TOOLS)/bin/podsecurity: $(wildcard tests/tools/go/podsecurity/*)
	@echo "tools: go build tests/tools/go/podsecurity"
	@go build -C tests/tools/go/podsecurity -buildvcs=false -o $@ .

# Debian's version, which is that of the release of Debian.
$(STAMPS)/prometheus $(STAMPS)/postgresql $(STAMPS)/fio: $(STAMPS)/%: tests/tools/%.sh tests/tools/unpack.sh
	@echo "tools: fetching $*"
	@mkdir -p $(STAMPS)
	@$<
	@touch $@

$(STAMPS)/cargo-fuzz-$(CARGO_FUZZ_VERSION):
	@echo "tools: installing cargo-fuzz $(CARGO_FUZZ_VERSION)"
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/cargo-fuzz-*
	@cargo install --quiet --locked --root $(TOOLS) --version $(CARGO_FUZZ_VERSION) cargo-fuzz
	@touch $@

$(STAMPS)/cargo-deny-$(CARGO_DENY_VERSION):
	@echo "tools: installing cargo-deny $(CARGO_DENY_VERSION)"
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/cargo-deny-*
	@cargo install --quiet --locked --root $(TOOLS) --version $(CARGO_DENY_VERSION) cargo-deny
	@touch $@

$(STAMPS)/python: tests/tools/requirements.txt
	@echo "tools: installing $$(grep -E '^(grpcio|kubernetes-validate)' $< | cut -d ' ' -f 1 | paste --serial --delimiters ' ')"
	@mkdir -p $(STAMPS) && rm -rf $(TOOLS)/venv
	@python3 -m venv $(TOOLS)/venv
	@$(TOOLS)/venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --requirement $<
	@touch $@

.PHONY: clients
clients: ## Builds the Go clients that dial as the builds of csc do
	@for client in old new; do \
		echo "clients: go build tests/tools/go/$$client"; \
		go build -C tests/tools/go/$$client -buildvcs=false -o $(TOOLS)/bin/walkthrough-$$client .; \
	done

.PHONY: chart
chart: setup tools-chart ## Renders what is made from the chart: its README, deploy/kubernetes and tests/chart/golden
	@echo "chart: tests/chart/charts.py"
	@$(TOOLS)/venv/bin/python -B tests/chart/charts.py

.PHONY: clean
clean: ## Removes everything that was built or installed here
	@echo "clean: removing $(CURDIR)/target"
	@rm -rf $(CURDIR)/target
