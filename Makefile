# `make help` lists the targets. All of them work from a fresh clone with git, make and a Rust toolchain; what else is
# missing scripts/prepare.sh installs.
.DEFAULT_GOAL := help
.PHONY: help run test full model simulate mutations faults long bench lint fmt fmt-check deny cases

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run with Kafka, DynamoDB and events in the process; nothing is kept
	@scripts/prepare.sh build
	cargo run --locked -- run --embedded

# At least four tests at a time: most of them wait for servers.
test: ## All tests, with real Kafka and Redis servers started by the tests
	@scripts/prepare.sh test
	@scripts/test-services.sh
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(nproc) > 4 ? $$(nproc) : 4))} cargo test --locked

cases: ## Only the integration tests, which hold the cases from the field
	@scripts/prepare.sh test
	@scripts/test-services.sh
	cargo test --locked --test it

full: ## The end-to-end tests at full size: 200,000 events each
	@scripts/prepare.sh test
	@scripts/test-services.sh
	RECORDKEEPER_TEST_EVENTS=200000 cargo test --locked --test it -- spine:: --test-threads 1

model: ## The protocol's model on larger worlds: tens of millions of states each, some 4 GB
	@scripts/prepare.sh build
	RECORDKEEPER_MODEL_LARGE=1 cargo test --locked --test model -- --nocapture --test-threads 1

simulate: ## The simulation of faults with other seeds; SEEDS=N FIRST=N
	@scripts/prepare.sh build
	RECORDKEEPER_SIMULATE_SEEDS=$(or $(SEEDS),100000) RECORDKEEPER_SIMULATE_FIRST=$(or $(FIRST),10000) \
		cargo test --locked --test simulation -- --nocapture

faults: ## Rounds of faults on real brokers, Redis and several instances; ROUNDS=N SEED=FIRST
	@scripts/prepare.sh test
	@scripts/test-services.sh
	RECORDKEEPER_FAULT_ROUNDS=$(or $(ROUNDS),20) RECORDKEEPER_FAULT_SEED=$(or $(SEED),1) \
		cargo test --locked --test faults -- --nocapture

long: ## What shows only at size or over time, with figures: more than an hour; EVENTS=N LOAD_SECONDS=N
	@scripts/prepare.sh test
	@scripts/test-services.sh
	RECORDKEEPER_LONG_EVENTS=$(or $(EVENTS),1000000) RECORDKEEPER_LONG_SECONDS=$(or $(LOAD_SECONDS),1800) \
		cargo test --locked --test long -- --nocapture --test-threads 1

mutations: ## Breaks each rule of the protocol in the code and shows that the tests notice
	@scripts/prepare.sh test
	tests/mutations.py

bench: ## What an event costs, beside a floor measured in the same run; BENCH_EVENTS=N BENCH_DELAY_MS=N
	@scripts/prepare.sh test
	@scripts/test-services.sh
	cargo bench --locked --bench pipeline

lint: ## Clippy, warnings are errors
	@scripts/prepare.sh build
	cargo clippy --locked --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt

fmt-check:
	cargo fmt --check

deny: ## Licences, sources, bans and advisories of the dependencies
	@scripts/deny.sh
