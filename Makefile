# The chores of this project. `make demo` and `make test` do all their own set-up.

CARGO ?= cargo
ARGS ?=

.PHONY: demo test story lint bench soak model model-deep mutants abuse reliability fuzz fuzz-coverage tools clean

# A pool that keeps its free sessions, live in the terminal, without any configuration. Built without the providers it does
# not use: aws-sdk-ec2 alone takes minutes. `make demo ARGS="--for 30s"` ends by itself.
demo:
	$(CARGO) run --quiet --locked --package kasm-daemon --no-default-features -- demo $(ARGS)

# Everything, with real servers on loopback. Installs what is missing.
test: tools
	sh tests/run.sh

# The whole story with a real machine: a domain controller and a virtual machine that joins it, driven by the daemon. Builds
# the machine's image when there is none, which takes some minutes and root.
story: tools
	sh tests/story/run.sh

# Simulated worlds with fresh seeds, 3,000 pool-years of them, 40 minutes on two cores: `make soak ARGS="--seconds 600"` for less,
# of which only what must never be, and what must have been seen, is demanded, not the figures of a whole run.
soak:
	$(CARGO) run --profile proof --locked --package kasm-autoscale-core --features testing --example soak -- \
		--from $$(date +%s)00000 --seeds 310000 --threads 2 --all-seen $(or $(ARGS),--goals --years 3000)

# Every order of events that small pools can meet, with the real state machine, ten million of them at least:
# `make model ARGS="--only joining"` for one kind of pool.
model:
	$(CARGO) run --profile proof --locked --package kasm-autoscale-core --features testing --example model -- \
		$(or $(ARGS),--at-least 10000000)

# Further than `make test` goes: more faults at once in every order, then all bounds at once on random ways, for they cannot be
# exhausted. Some minutes.
model-deep:
	$(CARGO) run --profile proof --locked --package kasm-autoscale-core --features testing --example model -- --deep $(ARGS)

# Plants mistakes in the core, each of which a simulated world must find within a minute.
mutants:
	sh tests/mutants.sh

# All fuzz targets on the stable toolchain, at least six million inputs with a fixed seed: `make fuzz ARGS="--seed 7 dn filter"`.
fuzz:
	sh tests/fuzz.sh $(ARGS)

# One fuzz target led by coverage, on a nightly toolchain with cargo-fuzz: `make fuzz-coverage TARGET=restore`, or `TARGET=all`.
TARGET ?= script
fuzz-coverage:
	sh tests/fuzz-coverage.sh $(TARGET) $(ARGS)

# A million hostile requests, drawn from the OpenAPI document and a seed, while good ones go on being served:
# `KASM_ABUSE_SEED=7 make abuse`. Prints what was sent, how it was answered, and what memory did.
abuse:
	KASM_ABUSE_REQUESTS=$${KASM_ABUSE_REQUESTS:-1000000} $(CARGO) test --release --locked --package kasm-daemon \
		--no-default-features --test abuse g_11 -- --nocapture

# Most of these, one after the other, and RELIABILITY.md of what they say, half an hour on two cores: `make reliability ARGS="worlds model"`
# for some of them, `ARGS=long` for those that take longer still.
reliability:
	sh tests/reliability.sh $(ARGS)

# Format, lints and documentation, all warnings denied.
lint:
	sh tests/lint.sh

# Criterion benchmarks of the core.
bench:
	$(CARGO) bench --locked --package kasm-benches

# Real components that the tests talk to: moto (EC2), xrdp, freerdp-shadow-cli, Xvfb, Xvnc, sshd.
tools:
	sh tests/install-tools.sh

clean:
	$(CARGO) clean
	rm -rf .tools
