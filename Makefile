# The verbs of the project. Each installs what it needs, where it is missing.
SHELL := /bin/bash
MODULES := . $(patsubst %/go.mod,%,$(wildcard */go.mod))

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME ?= 30s
SOAKTIME ?= 15m
MODELTIME ?= 1h
SEED ?= 0

.PHONY: test setup lint vet bench fuzz model soak faults demo

## test: setup, vet, and every test of every module with the race detector. All of it runs, whatever fails;
## what has failed, and what was skipped and why, stands together at the end
test: export SOAK = 20s
test:
	@go run .ci/test.go

## setup: what the tests need beyond Go, from Debian's packages (root or sudo)
setup:
	@.ci/setup

## vet: formatting, go vet on the systems that we name, staticcheck
vet:
	@rc=0; try() { echo "$$*"; "$$@" || { echo "FAIL: $$* (in $$PWD)"; rc=1; }; }; \
	bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "FAIL: not formatted: $$bad"; rc=1; fi; \
	for m in $(MODULES); do pushd $$m >/dev/null; try go vet ./...; try go run $(STATICCHECK) ./...; popd >/dev/null; done; \
	try go vet .ci/test.go; try env GOOS=windows go vet ./...; try env GOOS=darwin go vet ./...; exit $$rc

## lint: vet, and the known vulnerabilities (which asks a server on the internet)
lint: vet
	set -e; for m in $(MODULES); do (cd $$m && go run $(GOVULNCHECK) ./...); done

## bench: the hub beside the limit and its peers; BENCHFLAGS='-rows fanout -runs 5' for a part of it
bench:
	cd bench && go run . $(BENCHFLAGS)

## fuzz: each fuzz test for FUZZTIME, with little of it for making inputs shorter: what runs many
## goroutines does not take the same way twice, so that would go on for ever. Before Go 1.27, a busy
## machine makes the end of FUZZTIME itself a failure (go.dev/issue/75804): one without an input is none
fuzz:
	set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; rc=0; \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p >$$log 2>&1 || rc=$$?; \
	    if [ $$rc -ne 0 ] && grep -qx '    context deadline exceeded' $$log && ! grep -qiE 'failing input|panic|hung' $$log; then rc=0; fi; \
	    tail -n 4 $$log; if [ $$rc -ne 0 ]; then cat $$log; exit $$rc; fi; done; done

## model: random interleavings of what may happen to a message, for MODELTIME
model:
	go test -count=1 -timeout 0 -run '^TestModel$$' . -model $(MODELTIME)

## soak: 2,000 clients that make trouble for SOAKTIME, and a check of each promise; SEED repeats what one did; then the model
soak:
	go test -race -count=1 -v -timeout 0 -run '^TestSoak$$' . -soak $(SOAKTIME) -seed $(SEED)
	$(MAKE) model

## faults: replicas under load that are killed, stopped, cut off and restarted; partitions, which test skips where
## there are no network namespaces, are required
faults:
	cd e2e && NETNS=require go test -race -count=1 -v -timeout 10m ./faults

## demo: the chat
demo:
	go run ./example/chat
