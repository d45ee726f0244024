# meshrun needs Go and make. Whatever else a target uses, it gets by itself and
# says so; without the right to install, it says what to ask for.

GO          ?= go
BIN         := bin
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.1
FUZZTIME    ?= 100000x

.DEFAULT_GOAL := help
.PHONY: help build run test lint unit fuzz fuzz-short bench compiler consul cluster cluster-short cluster-test screenshots rolls hosts browser clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(BIN)/meshrun $(BIN)/synergy ## build bin/meshrun and the sample's programs

# Without gRPC's tracing, which nobody reads here, the linker can leave out far
# more: 4 MB of the binary, and 2.5 MiB of memory for its two processes.
$(BIN)/meshrun: FORCE
	@echo "building $@ (the first time fetches the Go modules: about a minute)"
	@CGO_ENABLED=0 $(GO) build -tags grpcnotrace -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/meshrun

$(BIN)/synergy: FORCE
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./examples/synergymesh/synergy

run: build ## run examples/quickstart in the foreground; Ctrl-C stops it
	@$(BIN)/meshrun up examples/quickstart

test: lint unit cluster-short fuzz-short ## check everything, as CI does

lint: ## gofmt, go vet, staticcheck
	@echo "checking the format"; bad=$$(gofmt -l cmd examples integration runtime schema spec); \
	  if [ -n "$$bad" ]; then echo "not gofmt'd:"; echo "$$bad"; exit 1; fi
	@echo "vetting"; $(GO) vet ./...
	@echo "running staticcheck (the first time builds it: about a minute)"; $(GO) run $(STATICCHECK) ./...

unit: compiler consul browser ## all tests under the race detector, but for those that break clusters
	$(GO) test -race -count=1 -timeout 15m $$($(GO) list ./... | grep -v /integration/scenarios)

fuzz-short:
	@$(MAKE) --no-print-directory fuzz FUZZTIME=2000x

# Executions and not a time limit: with a time limit, go test -fuzz sometimes fails with
# "context deadline exceeded" although no input failed (golang/go#75804).
fuzz: ## run every fuzz target for FUZZTIME executions (100000x)
	@for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | sed 's/^func //'); do \
	    echo "fuzzing $$pkg $$target for $(FUZZTIME)"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$pkg || exit 1; \
	  done; done

bench: build compiler ## the figures: start, recovery, memory, idle, edit, logs
	$(GO) run ./integration/bench

rolls: build ## roll redis, nginx and a Python service under load, and count what fails
	@command -v redis-server >/dev/null && command -v nginx >/dev/null && command -v wrk >/dev/null || $(call get,redis-server nginx-light wrk,real programs are rolled)
	@$(GO) run ./integration/rolls

# Consul is a module of its own, so that what it needs is no part of meshrun.
# The one in PATH does as well, unless there is ours.
consul: ## build bin/consul, which the tests of the store need, unless there is one
	@if [ -n "$$MESHRUN_TEST_CONSUL" ]; then echo "using $$MESHRUN_TEST_CONSUL, which MESHRUN_TEST_CONSUL names"; \
	  elif [ ! -e $(BIN)/consul ] && command -v consul >/dev/null; then echo "using $$(command -v consul), $$(consul version | head -1)"; \
	  else $(MAKE) --no-print-directory $(BIN)/consul; fi

$(BIN)/consul: integration/consul/go.mod integration/consul/go.sum
	@echo "building Consul from its module: several minutes once, then cached"
	@cd integration/consul && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../$@ github.com/hashicorp/consul
	@touch $@

# The race detector and the benchmark's bare loop need a C compiler.
compiler:
	@command -v cc >/dev/null || command -v gcc >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "no C compiler (the race detector needs one): installing Debian's gcc"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev; \
	  else echo "no C compiler, which Go's race detector needs: install one, e.g. apt-get install gcc libc6-dev" >&2; exit 1; fi; }

cluster: build consul ## three Consul servers and three nodes on this machine, until Ctrl-C
	@$(GO) build -o $(BIN)/trycluster ./integration/trycluster && exec $(BIN)/trycluster

# These measure time, and have the machine for themselves. The storm is the same
# each time here, and another one each time in cluster-test.
cluster-short: compiler consul hosts
	$(GO) test -race -count=1 -v -timeout 15m ./integration/scenarios -args -cluster.seed=1795561587804592197

cluster-test: compiler consul hosts ## break a cluster in every way: about three quarters of an hour, as root
	$(GO) test -count=1 -v -timeout 90m ./integration/scenarios -args -cluster.long

screenshots: consul browser ## pictures of a cluster on Consul's own pages, in .run/screenshots
	$(GO) test -count=1 ./integration/ui -args -screenshots $(CURDIR)/.run/screenshots

# Hosts to break are network namespaces, which take root; who has not got it
# still runs all other tests.
hosts:
	@command -v ip >/dev/null && command -v nft >/dev/null || $(call get,iproute2 nftables,the cluster tests need ip and nft)

browser:
	@command -v chromium >/dev/null || $(call get,chromium,the tests look at Consul in a browser)

# get installs Debian's packages where that is possible, and says what is
# missing where it is not: $(call get,PACKAGES,WHY)
define get
{ if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "$(2): installing Debian's $(1)"; \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
  else echo "$(2), which are left out: apt-get install $(1)" >&2; fi; }
endef

clean: ## remove what was built
	rm -rf $(BIN)
