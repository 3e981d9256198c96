# The entry points; CI (.ci/run) calls the same. Settings, all optional:
#   CARGO_TARGET_DIR   where to build, instead of target/
#   CLANG              the clang that compiles the BPF objects; otherwise scripts/find-tool chooses
#   CLANG_FORMAT       likewise; otherwise of clang's release
#   ARGS               arguments of `beeline demo` for `make demo`, and of `beeline bench` for `make bench`
#   GUARDS             names of guards for `make guards`, which `scripts/guards --list` shows; all otherwise
#   SECONDS            how long `make soak` runs
#   KERNELS            series for `make test-kernels`, as "5.10 6.1"; all that Debian offers otherwise

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO  := scripts/cargo
# -exec, because clang-format without a file waits for one on stdin.
bpf_c   = find crates/datapath/bpf -name '*.[ch]' -exec "$$(scripts/find-tool clang-format)" $(1) {} +

# Recipes that would ask for packages or compile first, and only then find out, check this first.
define need_root
@if [ "$$(id -u)" != 0 ]; then \
	echo "make $@ loads BPF programs and makes network namespaces; run it as root: sudo make $@" >&2; exit 1; \
fi
endef

.DEFAULT_GOAL := help
.PHONY: help build static deb demo bench test test-deb test-kernels test-programs guards soak lint fmt clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Build the release binary, target/release/beeline
	scripts/setup.sh build
	$(CARGO) build --release --locked --package beeline

static: ## Build a release binary without shared libraries, target/static/beeline
	scripts/setup.sh build
	scripts/static

deb: ## Build a Debian package of the release binary, target/debian/*.deb
	scripts/setup.sh deb
	$(CARGO) build --release --locked --package beeline
	scripts/deb $(TARGET)/release/beeline $(TARGET)/debian

demo: ## Show the gain on this host, then clean up (root; ARGS="..." goes to beeline demo)
	$(need_root)
	scripts/setup.sh demo
	$(CARGO) build --release --locked --package beeline
	$(TARGET)/release/beeline demo $(ARGS)

bench: ## Measure the standard set into bench/results/, in under half an hour (root; ARGS="..." goes to beeline bench)
	$(need_root)
	scripts/setup.sh bench
	$(CARGO) build --release --locked --package beeline
	$(TARGET)/release/beeline bench --output bench/results $(ARGS); status=$$?; \
	if [ -n "$$SUDO_UID" ]; then chown -R "$$SUDO_UID:$$SUDO_GID" bench; fi; exit $$status

test: ## Run all tests (root)
	$(need_root)
	scripts/setup.sh test
	$(CARGO) test --workspace --locked --no-run
	$(CARGO) --as-root test --workspace --locked --no-fail-fast

test-deb: ## Install, upgrade and remove the Debian package under live connections (root; minutes)
	$(need_root)
	scripts/setup.sh deb
	$(CARGO) test --package beeline --test deb --locked --no-run
	$(CARGO) --as-root test --package beeline --test deb --locked -- --include-ignored

test-kernels: ## Run the datapath's tests on other kernels, in QEMU, and write docs/kernels.md (hours)
	scripts/setup.sh kernels
	scripts/kernels/test $(KERNELS)

test-programs: ## Run databases, proxies, language runtimes and CPython's tests on both paths (root)
	$(need_root)
	scripts/setup.sh programs
	$(CARGO) test --package datapath --test programs --locked --no-run
	$(CARGO) --as-root test --package datapath --test programs --locked -- --include-ignored

guards: ## Take each guard out of the BPF code once, and expect a test to fail (root; GUARDS="..." names some)
	$(need_root)
	scripts/setup.sh test
	scripts/guards $(GUARDS)

soak: ## Run random programs of socket calls on both paths and compare (root; an hour, or SECONDS=...)
	$(need_root)
	scripts/setup.sh test
	$(CARGO) test --package datapath --test differential --locked --no-run
	BEELINE_SOAK_SECONDS=$(or $(SECONDS),3600) \
		$(CARGO) --as-root test --package datapath --test differential --locked -- --include-ignored --nocapture soak

lint: ## Check formatting, scripts, dependencies, lints and docs; changes nothing
	scripts/setup.sh lint
	$(CARGO) fmt --all --check
	$(call bpf_c,--dry-run -Werror)
	shellcheck scripts/cargo scripts/deb scripts/find-tool scripts/setup.sh scripts/static packaging/debian/p* scripts/kernels/fetch scripts/kernels/guest \
		scripts/kernels/init scripts/kernels/test .ci/run
	scripts/check-deps
	scripts/guards --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

fmt: ## Format Rust and BPF C in place
	scripts/setup.sh lint
	$(CARGO) fmt --all
	$(call bpf_c,-i)

clean: ## Remove what was built
	$(CARGO) clean
