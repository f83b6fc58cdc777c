# peerdma: `make help` says what there is.
#
# Variables:
#   KERNEL=NAME|PATH        guest kernel: lab (ours), debug (ours with the kernel's own checks), stock (the
#                           distribution's), lts (ours on the long-term series), or yours (vmlinux, bzImage, tree);
#                           without it lab if it has been built, otherwise stock
#   SCENARIO=NAME           another scenario than the quick set (make vm-test); target/peerdma test --list
#   OUT=DIR                 where make vm-test leaves its reports and logs; without it target/vm-test, or
#                           target/vm-test-KERNEL on another kernel than lab
#   COUNT=N SEED=N          how many random topologies, and the seed of the first one (make vm-random); without
#                           them `make oracle` draws 300, from a seed that it prints
#   PREFIX=DIR DESTDIR=DIR  where make install puts the program (/usr/local), and what goes before that in packages
#   ARGS='...'              more arguments for peerdma; for make bench: --strict, names of groups

CARGO   ?= cargo
PEERDMA := target/peerdma
KERNEL  ?= auto
OUT     ?=
COUNT   ?= 6
SEED    ?= 1
PREFIX  ?= /usr/local
# What the documentation is built with, and what checks our dependencies.
MDBOOK_VERSION     := 0.5.4
CARGO_DENY_VERSION := 0.20.2
# What takes its time before the program runs: the program prints it with its own share.
export PEERDMA_SHARES := target/shares

.DEFAULT_GOAL := help
.PHONY: help setup build test loom vm-test vm-test-all vm-examples vm-commands vm-interactive vm-debugging vm-planted-bug vm-mistakes vm-broken vm nightly bench lint docs links tools clean install dist manual packages vm-install vm-trixie vm-noble vm-random vm-dumps oracle

help: ## Say what there is
	@echo 'peerdma: a lab for PCIe peer-to-peer DMA'
	@echo
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)
	@echo
	@echo '  target/peerdma --help says what the program can do (after make build).'

setup: ## Install the distribution packages that are missing, as root or by sudo
	@rm -f '$(PEERDMA_SHARES)'
	@ci/timed.sh packages ci/setup.sh

build: setup ## Build the program, target/peerdma
	@ci/timed.sh 'the program' $(CARGO) build --release --locked
	@ln -sfn x86_64-unknown-linux-gnu/release/peerdma $(PEERDMA)

manual: setup ## Manual pages and shell completions, below target/share
	@rm -rf target/share
	$(CARGO) run --locked --quiet -p peerdma --example manual -- target/share

install: build manual ## Install program, manual pages and completions below PREFIX
	@ci/install-files.sh '$(DESTDIR)$(PREFIX)'

dist: build manual ## Pack them into a tarball with licences and checksums, target/dist
	@ci/dist.sh target/dist

packages: setup ## Pack each crate, build it from its package, and run its tests there
	ci/packages.sh $(ARGS)

test: setup ## Unit and integration tests, and tests of the KVM engine with bare-metal programs
	@CARGO='$(CARGO)' ci/test.sh $(ARGS)

loom: ## Every interleaving of the runtime's own primitives: the bell and the priority lock
	RUSTFLAGS='--cfg loom' $(CARGO) test --release --locked --target-dir target/loom -p peerdma-machine --lib loom_tests

vm-test: build ## Boot guests and check every DMA transaction in them
	$(PEERDMA) test --kernel '$(KERNEL)' $(if $(OUT),--out '$(OUT)') $(if $(SCENARIO),--scenario '$(SCENARIO)') $(ARGS)

vm-test-all: build ## All scenarios on all kernels, in one report: target/vm-test-all
	ci/vm-test-all.sh target/vm-test-all $(ARGS)

vm-examples: build ## The example drivers in guests: right ones pass, wrong ones are found
	ci/examples.sh target/vm-examples $(ARGS)

vm-dumps: build ## The guest's own lspci and capture lead back to the decisions of its topology
	ci/dumps.sh

vm-commands: build ## Commands in guests: what they begin with, and how their end reaches the shell
	ci/commands.sh target/vm-commands $(ARGS)

vm-interactive: build ## By hand: transfers, mistakes on purpose, files fetched and a module loaded anew in guests
	ci/interactive.sh target/vm-interactive $(ARGS)

vm-planted-bug: build ## docs/planted-bug.md, step by step: a bug is found, fixed, and the driver loaded anew
	ci/planted-bug.sh target/vm-planted-bug $(ARGS)

vm-debugging: build ## Guests paused at a finding and looked at from outside, and their kernel in gdb
	ci/debugging.sh target/vm-debugging $(ARGS)

nightly: ## What CI leaves out: other kernels and distributions, long scenarios, stalls, broken hardware
	ci/nightly.sh $(ARGS)

vm-mistakes: build ## Drivers' mistakes in guests: each is found, said right, and said once
	ci/mistakes.sh target/vm-mistakes $(ARGS)

vm-broken: build ## Hardware that is broken on purpose: exactly the tests that should notice fail
	ci/broken.sh target/vm-broken $(ARGS)

vm-killed: build ## Recordings that are killed at random moments: each trace reads to its end
	ci/record-killed.sh $(ARGS)

vm-install: setup ## Installed by cargo, without the source tree and with a new cache: the quick set
	ci/install.sh $(ARGS)

vm-trixie: ## The quick set as a user of Debian 13 runs it first, in a fresh root of that (as root)
	ci/distribution.sh trixie $(ARGS)

vm-noble: ## The same for Ubuntu 24.04, where its archive and its keyring are there
	ci/distribution.sh noble $(ARGS)

vm-random: build ## Topologies drawn at random: what is predicted of them comes true in guests
	ci/random-topologies.sh $(COUNT) $(SEED) $(ARGS)

oracle: build ## Random topologies, explained by the program and by a second reader; no guest
	ci/oracle/compare.py --count $(if $(filter file,$(origin COUNT)),300,$(COUNT)) $(if $(filter file,$(origin SEED)),,--seed $(SEED)) $(ARGS)

vm: build ## A console in a guest; Ctrl-A x leaves
	$(PEERDMA) boot --kernel '$(KERNEL)' $(ARGS)

bench: setup ## What checking costs, beside plain copies; also in target/bench/summary.json
	$(CARGO) bench --locked -p peerdma-machine --bench checking $(if $(ARGS),-- $(ARGS))

lint: setup links ## Formatting, clippy, crate pages, links, module layers, words, and the kernel's own checkpatch for the driver
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --workspace --locked --quiet
	@ci/layers.sh
	@ci/words.sh
	@ci/checkpatch.sh

docs: ## The documentation as a site, target/book; needs mdbook (make tools)
	ci/docs.sh target/book $(MDBOOK_VERSION)

links: ## Check the links between our own documents
	@ci/links.sh

tools: ## Install mdbook and cargo-deny, for make docs and make nightly
	cd / && $(CARGO) install --locked mdbook@$(MDBOOK_VERSION) cargo-deny@$(CARGO_DENY_VERSION)

clean: ## Remove what was built here; kernels stay in the user's cache
	$(CARGO) clean
