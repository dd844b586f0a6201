# Commands for people. `make help` lists them.

CARGO ?= cargo
DATA_DIR ?= var
FUZZ_SECONDS ?= 60
PROFILE := quick
BIN := target/$(PROFILE)/shardkeep
# The binary that tests start and kill. `cargo test` builds it with the tests, so that both have the same features and
# each dependency compiles once.
TEST_BIN := target/debug/shardkeep
RUN_TESTS := SHARDKEEP_BIN=$(abspath $(TEST_BIN)) $(CARGO)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the one binary, target/quick/shardkeep
	$(CARGO) build --profile $(PROFILE) -p shardkeep

.PHONY: up
up: build ## Build, then run the whole cluster on this machine (Ctrl-C ends it)
	$(BIN) up --data-dir $(DATA_DIR)

.PHONY: down
down: ## End the running cluster
	$(BIN) down --data-dir $(DATA_DIR)

.PHONY: demo
demo: build ## 50 headless players for 30 s, against the running cluster or one started for it
	$(BIN) demo --data-dir $(DATA_DIR)

.PHONY: attack
attack: ## Attack the running cluster (or one started for it) while honest players come and go
	$(CARGO) build --profile $(PROFILE) -p shardkeep -p shardkeep-attack
	target/$(PROFILE)/shardkeep-attack --data-dir $(DATA_DIR)

.PHONY: clean
clean: ## Remove the cluster's data and the build
	@if [ -x $(BIN) ]; then $(BIN) down --data-dir $(DATA_DIR); fi
	rm -rf $(DATA_DIR)
	$(CARGO) clean

.PHONY: lint
lint: ## Formatting, clippy, dependencies of crates and modules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) test --quiet -p shardkeep-types --test crate_dependencies --test module_graph

.PHONY: test-deps
test-deps: ## Install what the tests need: PostgreSQL, Redis, Python venv
	@deploy/test-deps.sh

.PHONY: test
test: test-deps ## All tests, on SQLite and on PostgreSQL + Redis
	$(CARGO) test --quiet --workspace --no-run
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(MAKE) --no-print-directory nextest; \
	else $(RUN_TESTS) test --workspace --no-fail-fast; fi

# The stories share a cluster within one process, and nextest starts a process for each test. Crates without documentation
# tests say `doctest = false`. All runs name the whole workspace: with fewer packages, cargo selects other features and
# compiles most dependencies again.
.PHONY: nextest
nextest:
	@status=0; \
	$(RUN_TESTS) nextest run --workspace --no-fail-fast -E 'not binary(stories)' || status=1; \
	$(RUN_TESTS) test --workspace --no-fail-fast --test stories || status=1; \
	$(RUN_TESTS) test --workspace --no-fail-fast --doc || status=1; \
	exit $$status

.PHONY: test-long
test-long: test-deps journal-builds ## Chaos and soak runs, about half an hour
	SHARDKEEP_TWIN_SEEDS=0..10000 $(CARGO) test --profile $(PROFILE) -p shardkeep-zone --lib twin -- --nocapture
	$(CARGO) test --quiet --workspace --no-run
	$(RUN_TESTS) test --workspace --test stories -- --ignored --test-threads 1

# The journal of a debug build replays to the same hashes with the other builds.
.PHONY: journal-builds
journal-builds:
	rm -rf target/journal-builds
	SHARDKEEP_JOURNAL_OUT=$(abspath target/journal-builds) $(CARGO) test --quiet -p shardkeep-journal --test journal \
	  recorded_space_replays
	for profile in quick release; do \
	  $(CARGO) build --profile $$profile -p shardkeep && \
	  for run in 1 2; do target/$$profile/shardkeep replay target/journal-builds || exit 1; done || exit 1; \
	done

# The sanitizer comes with the stable compiler; the variable is what lets cargo-fuzz ask for it.
.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZ_SECONDS (60) each
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz
	@for target in $$($(CARGO) fuzz list); do \
	  mkdir -p fuzz/found/$$target; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --all-features $$target fuzz/found/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -print_final_stats=1 || exit 1; \
	done

.PHONY: bench
bench: ## The table of measures, each against a peer or limit in the same run
	$(CARGO) build --release -p shardkeep -p shardkeep-bench
	SHARDKEEP_BIN=$(abspath target/release/shardkeep) target/release/shardkeep-bench

.PHONY: images
images: ## One container image per daemon
	deploy/images.sh
