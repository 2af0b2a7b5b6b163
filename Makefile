# All that a developer runs. `make` alone lists the targets.

export CGO_ENABLED = 0

GO          ?= go
STATICCHECK  = v0.8.2
PLATFORMS    = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 freebsd/amd64 freebsd/arm64
DEBS         = qemu-utils e2fsprogs gcc libc6-dev zsh fish mandoc python3-libvhdi
MODULES      = . examples/listfs
FUZZTIME    ?= 10s
BENCHFLAGS  ?=

# The staticcheck of that version in the path, or our own.
tools        = $(CURDIR)/bin/tools/$(STATICCHECK)
staticcheck  = $(shell staticcheck -version 2>/dev/null | grep -q '($(STATICCHECK:v%=%))' && echo staticcheck || echo $(tools)/staticcheck)

.NOTPARALLEL:
.PHONY: help build man demo test deps lint cross unit examples race fuzz-short bench accept crash-long model-long clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

build: ## bin/diskimg, static, and bin/qemu-img and bin/qemu-io, which are links to it
	$(GO) build -trimpath -ldflags '-s -w' -o bin/diskimg ./cmd/diskimg
	ln -sf diskimg bin/qemu-img
	ln -sf diskimg bin/qemu-io

man: build ## out/man, the manual pages
	@mkdir -p out/man && bin/diskimg man >out/man/diskimg.1
	@for v in $$(sed -n 's/^.B diskimg\\-\([a-z]*\)(1)/\1/p' out/man/diskimg.1); do \
	  bin/diskimg man $$v >out/man/diskimg-$$v.1 || exit 1; \
	done; ls out/man

demo: build ## the main job on a small real disk, with all that is said about it
	@command -v mke2fs >/dev/null || test -x /sbin/mke2fs || $(MAKE) --no-print-directory deps DEBS=e2fsprogs tools=
	@sh examples/demo.sh

test: deps lint cross examples unit race ## everything that a change must pass; installs what it needs first

deps: ## install what the tests need: Debian packages and staticcheck
	@if command -v dpkg >/dev/null; then \
	  missing=; for p in $(DEBS); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then \
	    sudo=; [ $$(id -u) = 0 ] || sudo=sudo; set -x; \
	    $$sudo apt-get update -q && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	  fi; \
	else echo "no dpkg here: the tests need the programs of $(DEBS)"; fi
	@if [ -n "$(tools)" ] && [ $(staticcheck) != staticcheck ] && [ ! -x $(tools)/staticcheck ]; then \
	  set -x; GOBIN=$(tools) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK); \
	fi

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted by gofmt: $$unformatted"; exit 1; }
	@for m in $(MODULES); do (cd $$m && set -x && $(GO) vet ./... && $(staticcheck) ./...) || exit 1; done

cross: ## compile and vet everything, tests too, for each platform
	@for p in $(PLATFORMS); do \
	  echo "GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./..."; \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... && \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./cmd/diskimg || exit 1; \
	done

unit: ## all tests: models, power cuts, faults, fuzz seeds, and the acceptance test with 256 MiB
	CI=true DISKIMG_ACCEPT_SIZE=256M $(GO) test -timeout 40m ./...

examples: ## the tests of the examples
	cd examples/listfs && CI=true $(GO) test ./...

# The detector makes all ten times as slow: fewer power cuts and faults, a sample of
# the command lines, and not what runs another program only.
race: ## the tests under the race detector
	CI=true CGO_ENABLED=1 $(GO) test -race -timeout 40m $$($(GO) list ./... | grep -v -e /qcow2$$ -e /vhd$$ -e /qed$$ -e /internal/cli$$ -e /internal/accept$$)
	CI= CGO_ENABLED=1 $(GO) test -race -timeout 40m ./internal/cli
	CI=true CGO_ENABLED=1 $(GO) test -race -timeout 40m -skip Mutants ./qcow2 ./qed ./vhd -crash.states 2000 -fault.scenarios 2

fuzz-short: ## each fuzz target for FUZZTIME
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    (set -x; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p) || exit 1; \
	  done; \
	done

bench: build ## a table of diskimg against qemu-img on 4 GiB and more; BENCHFLAGS=-help
	$(GO) run ./internal/bench $(BENCHFLAGS)

accept: ## a real disk of 4 GiB through every shape and back, with qemu-img
	CI=true DISKIMG_ACCEPT_SIZE=4G $(GO) test -count=1 -timeout 3h -v ./internal/accept

crash-long: ## ten million power cuts, and every I/O failing in a thousand scenarios
	$(GO) test -count=1 -timeout 24h ./qcow2 -run '^TestCrash$$' -crash.states 10000000
	$(GO) test -count=1 -timeout 24h ./qcow2 -run '^TestFaults$$' -fault.scenarios 1000
	$(GO) test -count=1 -timeout 24h ./vhd ./qed -run '^TestCrash$$|^TestFaults$$' -crash.states 10000000 -fault.scenarios 1000

model-long: ## fifty times as many random sequences
	CI=true DISKIMG_LONG=1 $(GO) test -count=1 -timeout 24h ./...

clean: ## remove what was built and measured
	rm -rf bin out
