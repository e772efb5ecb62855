# Highwater. `make` without a target lists the targets.

CARGO ?= cargo
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater
export PATH := $(CACHE)/bin:$(PATH)
# In these files, a change that no test notices could cost a stake.
MUTATED := answer.rs chain.rs privval/sign_bytes.rs $(addprefix watermark/,mark.rs record.rs rule.rs store.rs)

# Most tests wait for a node, a device or a deadline: two for each core keep it busy.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

.DEFAULT_GOAL := help
.PHONY: help assurance demo test test-fast lint msrv fmt build install bench fuzz mutants mutants-in-diff powercut crates package \
  package-test reproducible sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Watch it sign ten heights and refuse a double sign; no network, no root, under 30 s after the build
	@$(CARGO) run --quiet --locked --release --example demo

test: ## Run every test; first builds real CometBFT nodes, tmkms and a mock YubiHSM into a per-user cache, and installs Debian packages if root
	@tests/install/debian.sh softhsm2 opensc strace systemd selinux-policy-dev mandoc opencryptoki p11-kit-modules \
	  libnss3 libtpm2-pkcs11-1 libtpm2-pkcs11-tools swtpm swtpm-tools tpm2-tools
	@tests/install/kryoptic.sh
	@tests/install/cometbft.sh
	@tests/install/tmkms.sh
	@tests/install/promtool.sh
	@tests/install/yubihsm-device.sh >/dev/null
	@tests/install/powercut.sh
	@tests/install/filepv.sh >/dev/null
	$(CARGO) test --locked
	$(CARGO) build --locked --release
	HIGHWATER_BINARY=$(CURDIR)/target/release/highwater $(CARGO) test --locked --test devices yubihsm

test-fast: ## Run the unit tests only
	$(CARGO) test --locked --lib

lint: ## Check formatting, clippy, the oldest toolchain if it is installed, licences and sources of every dependency, and advisories if their database is available
	@tests/install/cargo-deny.sh
	$(CARGO) fmt --check
	$(CARGO) fetch --locked
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTC_BOOTSTRAP=1 $(CARGO) check --locked --quiet --manifest-path fuzz/Cargo.toml
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --quiet
	$(CARGO) deny --offline check bans licenses sources
	@tests/advisories.sh
	@tests/msrv.sh

msrv: ## Compile everything with the oldest toolchain that Cargo.toml claims, if it is installed
	@tests/msrv.sh

fmt: ## Format the code
	$(CARGO) fmt

build: ## Build the release binary: target/release/highwater
	$(CARGO) build --locked --release

install: build ## Install the binary into PREFIX/bin (default /usr/local)
	install -D -m 0755 target/release/highwater $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/highwater

bench: ## Measure Highwater beside tmkms, CometBFT's own signer and the floor, and write docs/performance.md; needs a quiet machine
	@tests/install/debian.sh softhsm2 strace
	@tests/install/tmkms.sh
	@tests/install/priv-val-server.sh >/dev/null
	$(CARGO) bench --locked --bench peers --bench pkcs11 --bench signing

fuzz: ## Fuzz each target for SECONDS (default 30) with cargo-fuzz on the stable toolchain, from fuzz/seeds
	@tests/install/cargo-fuzz.sh
	@for target in $$(ls fuzz/targets | sed 's/\.rs$$//'); do \
	  mkdir -p fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(or $(SECONDS),30) -print_final_stats=1 || exit 1; done

assurance: ## Test the three promises harder than `make test` does, about ten minutes; prints a line for each guarantee with its count, and fails if one is missing
	@tests/assurance.sh

mutants: ## Make every small change to the rule, the record, the store and the sign bytes; the unit tests must notice. Slow
	@tests/install/cargo-mutants.sh
	nice $(CARGO) mutants -j1 --output target --package highwater-core $(addprefix -f core/src/,$(MUTATED)) -- --locked --lib

mutants-in-diff: ## The same for the lines that differ from origin/main, or from the commit before; within six minutes
	@MUTATED="$(addprefix core/src/,$(MUTATED))" tests/mutants_in_diff.sh

powercut: ## Cut the power of a virtual machine that signs, N times (default 200, about five seconds each)
	@tests/install/powercut.sh
	HIGHWATER_POWERCUTS=$(or $(N),200) nice -n 10 $(CARGO) test --locked --release --test powercut -- --nocapture

crates: ## Count the crates of the default build
	@$(CARGO) tree --locked -e normal --prefix none | sed 's/ (\*)//' | sort -u | grep -c .

package: ## Build the Debian package into target/debian
	@tests/install/cargo-tool.sh cargo-auditable 0.7.5
	@tests/install/cargo-tool.sh cargo-deb 3.8.0
	@tests/install/debian.sh dpkg-dev binutils
	packaging/build.sh

package-test: package ## Install, run, upgrade and purge that package in a bare Debian; root only
	@tests/install/debian.sh systemd-container
	@tests/install/chroot.sh
	$(CARGO) test --locked --test package -- --ignored

reproducible: ## Build the package in two folders and compare every byte; takes two release builds
	@tests/install/cargo-tool.sh cargo-auditable 0.7.5
	@tests/install/cargo-tool.sh cargo-deb 3.8.0
	packaging/reproducible.sh

sbom: ## List every crate of the release, as CycloneDX: target/highwater.cdx.json
	@tests/install/cargo-tool.sh cargo-cyclonedx 0.5.9
	packaging/sbom.sh

clean: ## Remove what was built in this checkout
	$(CARGO) clean
