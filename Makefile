# The one entry point. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
LISTEN ?= 127.0.0.1
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc)
NEXTEST := $(CARGO) nextest run --no-fail-fast --status-level fail --final-status-level slow
LONG_TESTS := $(NEXTEST) -p crush-tests --run-ignored only --no-capture
export SBC_LAB_OUT ?= $(CURDIR)/var/lab
# One set of packages for all targets: another set has other features, and would build its dependencies again.
PROGRAMS := build --quiet --profile test -p sbc -p nat-lab -p phone
RELEASE_ROWS := $(CURDIR)/var/release-rows
RECORD_ROWS := $(CURDIR)/var/release-records

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: ## install what run and test need from Debian or Ubuntu (root), or say what is missing
	@tests/lab/install.sh

.PHONY: run
run: ## build, start a private PostgreSQL and the SBC, say what to do next (LISTEN=address, SIP_PORT, HTTP_PORT, HTTP_LISTEN)
	@tests/lab/install.sh run
	@LISTEN='$(LISTEN)' SIP_PORT='$(SIP_PORT)' HTTP_PORT='$(HTTP_PORT)' HTTP_LISTEN='$(HTTP_LISTEN)' deploy/dev/run.sh

.PHONY: records
records: ## the latest calls of `make run` (CALL=id: what happened in one)
	@if [[ -x var/run/records ]]; then var/run/records $(CALL); else echo 'no calls yet: make run'; fi

.PHONY: test
test: ## all tests, with short versions of the long ones
	@tests/lab/install.sh test
	@mkdir -p '$(SBC_LAB_OUT)'
	@$(CARGO) $(PROGRAMS)
	@# Real phones come after what keeps the processors busy, and three scenarios at a time: see .config/nextest.toml.
	@if cargo nextest --version >/dev/null 2>&1; then \
		failed=0; $(NEXTEST) --workspace --all-targets -E 'not package(crush-tests)' || failed=1; \
		$(NEXTEST) -p crush-tests --test-threads 3 && exit $$failed; \
	else $(CARGO) test --workspace --no-fail-fast; fi
	@$(CARGO) test --workspace --doc --quiet

.PHONY: test-phones
test-phones: ## real phones in full, with the five idle minutes behind a NAT
	@tests/lab/install.sh test
	@mkdir -p '$(SBC_LAB_OUT)'
	@$(CARGO) $(PROGRAMS)
	@$(NEXTEST) -p crush-tests --run-ignored all --test-threads 3 -E 'binary(phones) | binary(nat)'

.PHONY: test-load
test-load: ## SIPp at 100 calls/s for 60 s, with the database stopped, with kill -9, with a stepped clock
	@tests/lab/install.sh test
	@$(CARGO) build --release -p sbc
	@SBC_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/sbc" $(LONG_TESTS) -E 'binary(load)'

.PHONY: test-ports
test-ports: ## 500 one-second calls a second inside one realm with its default ports, RTP both ways, for 60 s
	@tests/lab/install.sh test
	@$(CARGO) build --release -p sbc
	@SBC_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/sbc" $(LONG_TESTS) --cargo-profile release -E 'binary(load) & test(short_calls_inside_one_realm)'

.PHONY: soak
soak: ## load for an hour (SOAK_SECONDS)
	@tests/lab/install.sh test
	@$(CARGO) build --release -p sbc
	@SBC_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/sbc" SBC_LOAD_SECONDS=$${SOAK_SECONDS:-3600} $(LONG_TESTS) -E 'binary(load) & test(full_load)'

.PHONY: lint
lint: ## formatting, clippy, shellcheck, licences and advisories, queries against a real database
	@deploy/dev/lint.sh

.PHONY: shape
shape: ## figures of the code's shape: parameters, sides as numbers, circles, doubles in tests (deploy/dev/shape.py -v names them); SINCE=COMMIT counts the lines of new tests
	@python3 deploy/dev/shape.py $(if $(SINCE),--since $(SINCE))

.PHONY: test-names
test-names: ## what became of each test since a commit, as a table (make test-names SINCE=COMMIT)
	@python3 deploy/dev/test_names.py $(SINCE)

.PHONY: bench
bench: ## side by side with Kamailio and rtpengine; writes bench/results.json
	@tests/lab/install.sh bench
	@$(CARGO) build --release --workspace --bins --examples
	@python3 bench/bench.py

.PHONY: bench-pairs
bench-pairs: ## this commit against SINCE=commit, by turns (PAIRS=7): medians of the ratios; root, nothing else running, about 40 minutes
	@tests/lab/install.sh bench
	@python3 bench/pairs.py '$(SINCE)' --pairs '$(or $(PAIRS),7)'

.PHONY: demo
demo: ## two phones behind two NATs: their call leaves the relay, loses the direct path, goes on over the relay; draws it (PICTURE=docs/demo.svg: the README's) (root)
	@tests/lab/install.sh demo
	@mkdir -p '$(SBC_LAB_OUT)'
	@$(CARGO) build --quiet --profile test -p sbc -p nat-lab -p phone -p crush-tests
	@DEMO_PICTURE='$(or $(PICTURE),$(SBC_LAB_OUT)/demo.svg)' "$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/demo"

.PHONY: nat-matrix
nat-matrix: ## which pairs of NATs get a direct path: 1,000 virtual runs each (RUNS), and real phones in namespaces; writes bench/nat-matrix.json and its picture, fails if a row misses a bound
	@tests/lab/install.sh test
	@mkdir -p '$(SBC_LAB_OUT)'
	@$(CARGO) $(PROGRAMS)
	@rm -f '$(SBC_LAB_OUT)/virtual.json' '$(SBC_LAB_OUT)/namespaces.json'
	@status=0; \
	NAT_MATRIX_RUNS=$${RUNS:-1000} NAT_MATRIX_OUT='$(SBC_LAB_OUT)/virtual.json' \
		$(CARGO) test --quiet -p crush --test calls nat_matrix::matrix -- --ignored || status=1; \
	NAT_MATRIX_OUT='$(SBC_LAB_OUT)/namespaces.json' $(LONG_TESTS) -E 'binary(nat_matrix)' || status=1; \
	python3 bench/nat_matrix.py '$(SBC_LAB_OUT)/virtual.json' '$(SBC_LAB_OUT)/namespaces.json' bench/nat-matrix.json docs/nat-matrix.svg || status=1; \
	exit $$status

.PHONY: handoff-quality
handoff-quality: ## what is heard at handoffs, returns and network switches, 1,000 virtual runs each (RUNS); writes bench/handoff.json
	@HANDOFF_RUNS=$${RUNS:-1000} HANDOFF_OUT='$(CURDIR)/bench/handoff.json' \
		$(CARGO) test --quiet -p crush --test calls handoff_quality::full_count -- --ignored

.PHONY: release-records
release-records: ## records against captures: 200 real calls (RECORD_CALLS=25 a pair; PAIRS=regex) and RUNS=800 virtual ones; goes on with bench/release-records.json (AGAIN=1: plays again what was wrong)
	@tests/lab/install.sh test
	@mkdir -p '$(RECORD_ROWS)'
	@python3 bench/release_records.py bench/release-records.json '$(RECORD_ROWS)' >/dev/null || true
	@$(CARGO) $(PROGRAMS)
	@failed=0; RECORD_CALLS=$${RUNS:-800} RECORD_OUT='$(RECORD_ROWS)/virtual.json' $(NEXTEST) -p sbc -E 'binary(released_calls) & test(records)' || failed=1; \
		RECORD_CALLS=$${RECORD_CALLS:-25} RECORD_OUT='$(RECORD_ROWS)' RECORD_TABLE='$(CURDIR)/bench/release-records.json' $(NEXTEST) -p crush-tests --run-ignored only --no-fail-fast --test-threads 8 -E "binary(release) & test(/^records::.*$${PAIRS:-}/)" || failed=1; \
		python3 bench/release_records.py bench/release-records.json '$(RECORD_ROWS)' || failed=1; exit $$failed

.PHONY: release-matrix
release-matrix: ## release and return of every pair of phones in every place, real (REAL_RUNS=3 each) and virtual (RUNS calls); writes bench/release-matrix.json
	@tests/lab/install.sh test
	@rm -rf '$(RELEASE_ROWS)' && mkdir -p '$(RELEASE_ROWS)'
	@$(CARGO) $(PROGRAMS)
	@RELEASE_CALLS=$${RUNS:-10000} RELEASE_OUT='$(RELEASE_ROWS)/virtual.json' $(NEXTEST) -p sbc -E 'binary(released_calls) & test(seeded)'
	@failed=0; REAL_OUT='$(RELEASE_ROWS)' $(NEXTEST) -p crush-tests --run-ignored only --test-threads 3 -E 'binary(release) & test(/_in_full$$/)' || failed=1; \
		python3 bench/release_matrix.py bench/release-matrix.json '$(RELEASE_ROWS)'/*.json; exit $$failed

.PHONY: release-long
release-long: ## calls of 180 s (SECONDS) of each pair of real phones, with lost packets and reports, silence and cuts; goes on with bench/release-long.json (PAIRS, LOSS, VAD, CUTS, RUNS, FIELDS, AGAIN=1, OUT)
	@tests/lab/install.sh test
	@mkdir -p '$(SBC_LAB_OUT)'
	@$(CARGO) $(PROGRAMS) -p crush-tests
	@"$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/long"

.PHONY: release-load
release-load: ## what the relay does for 1,000 calls (LOAD_CALLS) before and after release; writes bench/release-load.json
	@tests/lab/install.sh test
	@$(CARGO) build --release -p sbc
	@SBC_PROGRAM="$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/sbc" LOAD_OUT='$(CURDIR)/bench/release-load.json' \
		$(LONG_TESTS) --cargo-profile release -E 'binary(release) & test(the_relays_load)'

.PHONY: hostile-calls
hostile-calls: ## 10,000 virtual calls (HOSTILE_CALLS) with hostile strangers on the wire: none silent, no packet astray
	@HOSTILE_CALLS=$${HOSTILE_CALLS:-10000} $(CARGO) test --quiet -p media-core --test edge strangers_send

.PHONY: attack
attack: ## what strangers can take from calls: each attack alone for ATTACK_SECONDS (60), then all together; writes bench/attack.json (root)
	@tests/lab/install.sh test
	@$(CARGO) build --release -p sbc -p crush-tests --bins
	@python3 bench/attack.py

.PHONY: growth
growth: ## what a million subscribers, routes and bindings cost a call, a change, memory and the start (ROWS, RUNS); writes bench/growth.json
	@tests/lab/install.sh bench
	@$(CARGO) build --release -p sbc --bin sbc --example growth_cost
	@cd bench && python3 growth.py --rows $${ROWS:-1000000} --runs $${RUNS:-7}

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ_SECONDS (60)
	@deploy/dev/fuzz.sh $(FUZZ_SECONDS)

.PHONY: fuzz-long
fuzz-long: ## every fuzz target for ten minutes
	@deploy/dev/fuzz.sh 600
