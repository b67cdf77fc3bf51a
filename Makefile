# What a person types. Each target says what it does; the work is in scripts/ and in cargo.

CARGO ?= cargo
# Built for the first start to come soon; `cargo build --release` makes the one for production.
PROFILE ?= quick
# Options for `fulcrum up`, for example: make up ARGS='--feed replay --engines 2'
ARGS ?=
# Which examples `make test-clients` runs: all of the four unless given.
CLIENTS ?=

.PHONY: help up build test test-clients mutants lint docs clean

help:
	@echo 'make up      install what is missing, build, start everything (ARGS="--feed replay" and so on)'
	@echo 'make test    install what the tests need, then check and test everything'
	@echo 'make test-clients   the examples in C++, Go, Java and Ruby, each against a real mesh (installs what they need)'
	@echo 'make mutants  changes the core in some 570 ways and looks whether a test notices each (an hour; needs cargo-mutants)'
	@echo 'make lint    the fast checks: format, clippy, interface definitions'
	@echo 'make docs    the documentation of the code, into target/doc'
	@echo 'make clean   remove what was built; data in .fulcrum stays'

up:
	@scripts/setup up
	@echo '== building (the first time takes some minutes)'
	@$(CARGO) build --locked --profile $(PROFILE) --package fulcrum
	@exec "$$(scripts/target-dir)/$(PROFILE)/fulcrum" up $(ARGS)

build:
	@scripts/setup build
	$(CARGO) build --locked --release --package fulcrum

test:
	@scripts/setup test
	@scripts/test

test-clients:
	@scripts/setup up
	@scripts/test-clients $(CLIENTS)

mutants:
	PROPTEST_CASES=20 $(CARGO) mutants --package engine-core --timeout 60 --no-shuffle --output "$$(scripts/target-dir)" -- --lib --tests

lint:
	@scripts/setup lint
	@scripts/lint

docs:
	@scripts/setup build
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps

clean:
	$(CARGO) clean
	rm -rf .tools examples/*/build examples/*/node_modules examples/python/.venv
