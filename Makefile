# What a person types. `make help` lists it.

CARGO ?= cargo
DATA_DIR ?= var
FUZZ_SECONDS ?= 60
PROFILE := quick
BIN := target/$(PROFILE)/shardkeep
# The binary that tests start and kill, built by the same profile as the tests.
TEST_BIN := target/debug/shardkeep

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
attack: build ## Attack the running cluster (or one started for it) while honest players come and go
	$(BIN) attack --data-dir $(DATA_DIR)

.PHONY: clean
clean: ## Remove the cluster's data and the build
	@if [ -x $(BIN) ]; then $(BIN) down --data-dir $(DATA_DIR); fi
	rm -rf $(DATA_DIR)
	$(CARGO) clean

.PHONY: lint
lint: ## Formatting, clippy, the dependency arrows
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) test --quiet -p shardkeep-types --test crate_dependencies

.PHONY: test-deps
test-deps: ## Install what the tests need: PostgreSQL, Redis, Python venv
	@deploy/test-deps.sh

.PHONY: test
test: test-deps ## All tests, on SQLite and on PostgreSQL + Redis
	$(CARGO) build --quiet -p shardkeep -p shardkeep-example-dice
	SHARDKEEP_BIN=$(abspath $(TEST_BIN)) $(CARGO) test --workspace --no-fail-fast

.PHONY: test-long
test-long: test-deps ## Chaos and soak runs, about half an hour
	$(CARGO) build --quiet -p shardkeep -p shardkeep-example-dice
	SHARDKEEP_BIN=$(abspath $(TEST_BIN)) $(CARGO) test -p shardkeep-stories --test stories -- --ignored --test-threads 1

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
