# The project's commands. Each installs what it needs.
SHELL := /bin/bash
MODULES := . $(patsubst %/go.mod,%,$(wildcard */go.mod))

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME ?= 30s
SOAKTIME ?= 15m
MODELTIME ?= 1h
SEED ?= 0

.PHONY: test setup lint vet bench fuzz model soak faults demo

## test: setup, vet, and every test of every module, with the race detector.
## It runs everything even if something fails, and lists at the end what failed, and what was skipped and why
test: export SOAK = 20s
test:
	@go run .ci/test.go

## setup: what the tests need besides Go, from Debian's packages (needs root or sudo)
setup:
	@.ci/setup

## vet: gofmt, go vet for the supported systems, staticcheck
vet:
	@rc=0; try() { echo "$$*"; "$$@" || { echo "FAIL: $$* (in $$PWD)"; rc=1; }; }; \
	bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "FAIL: not formatted: $$bad"; rc=1; fi; \
	for m in $(MODULES); do pushd $$m >/dev/null; try go vet ./...; try go run $(STATICCHECK) ./...; popd >/dev/null; done; \
	try go vet .ci/test.go; try env GOOS=windows go vet ./...; try env GOOS=darwin go vet ./...; try env GOARCH=386 go vet ./internal/fanout ./internal/poll ./internal/rawio ./internal/steady; exit $$rc

## lint: vet, and a check for known vulnerabilities (it asks a server on the internet)
lint: vet
	set -e; for m in $(MODULES); do (cd $$m && go run $(GOVULNCHECK) ./...); done

## bench: compares the hub with the limit and with peers; BENCHFLAGS='-rows fanout -runs 5' runs a part of it
bench:
	cd bench && go run . $(BENCHFLAGS)

## fuzz: each fuzz test for FUZZTIME. It spends little time on making inputs shorter: tests with many goroutines
## do not run the same way twice, so that would never end. Before Go 1.27, a busy machine reports the end of
## FUZZTIME itself as a failure (go.dev/issue/75804); a failure without an input does not count
fuzz:
	set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; rc=0; \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p >$$log 2>&1 || rc=$$?; \
	    if [ $$rc -ne 0 ] && grep -qx '    context deadline exceeded' $$log && ! grep -qiE 'failing input|panic|hung' $$log; then rc=0; fi; \
	    tail -n 4 $$log; if [ $$rc -ne 0 ]; then cat $$log; exit $$rc; fi; done; done

## model: random interleavings of everything that may happen to a message, for MODELTIME
model:
	go test -count=1 -timeout 0 -run '^TestModel$$' . -model $(MODELTIME)

## soak: 2,000 clients that make trouble for SOAKTIME, and a check of each promise; SEED repeats an earlier run; then the model
soak:
	cd e2e && go test -race -count=1 -v -timeout 0 -run '^TestSoak$$' ./soak -soak $(SOAKTIME) -seed $(SEED)
	$(MAKE) model

## faults: replicas under load are killed, stopped, cut off and restarted. Network namespaces are required for the
## partitions, which "make test" skips without them
faults:
	cd e2e && NETNS=require go test -race -count=1 -v -timeout 10m ./faults -pace 5ms

## demo: the chat
demo:
	go run ./example/chat
