# make demo       runs the EchoAction context for a few messages; needs neither root nor systemd
# make test       all tests; as root also those that boot this machine's systemd in a namespace
# make quick      the tests of the core and of the house, without mypy, in a few seconds
# make test-on    the same tests in another Debian, with its libraries and its systemd: SUITE=trixie (bookworm, forky); needs root and
#                 debootstrap, and keeps the suite in /var/cache/zmsvc or ZMSVC_SUITES=; PYTEST_ARGS= says which tests
# make test-lowest  tests with the lowest versions of the libraries that setup.cfg allows; needs Python 3.11
# make all-tests  everything: test, test-lowest, test-on for each suite, test-cockpit, test-deb, fuzz, kills, simulate, chaos, soak and
#                 cluster
# make bench      measures zmsvc beside other service managers, in 10 minutes; make bench-full takes longer; as root also systemd
# make bench-on SUITE=trixie measures in another Debian, with its Python, its libraries and its systemd; needs root, as test-on
# make bench-pages  lists the pages that a task has written to; make bench-forks measures the ways to fork; each takes some seconds
# make bench-record measures what a record costs the supervisor, in some seconds
# make bench-scale measures how far one context goes on one machine, in 5 minutes: the figures of docs/scale.md
# make bench-safety measures what the guards against other users cost, in 5 minutes; as root all of them
# make cluster    breaks a context in a cluster of three booted hosts in six ways, and tasks on other hosts in eight, in 5 minutes; RUNS=3 prints a table; needs root, and
#                 the archive of the distribution once: the hosts' packages stay in the cache beside the suites
# make check      checks the code itself: ruff, mypy, layers, units, documents
# make fuzz       sends garbage as files, frames, requests and datagrams: TIMES=20 times the effort of `make test`
# make kills      makes 100 random kills under load, and 100 among services that talk; SEED= repeats a run, KILLS= sets the number
# make simulate   compares 200 random contexts under the daemon with their simulations; SEED= repeats a run
# make chaos      sends random orders, kills and reloads for SECONDS=60; SEED= repeats a run
# make soak       runs a context under load and kills for SECONDS=600; fails if descriptors or memory grow
# make mutants    changes SAMPLE=40 places of zmsvc/core, one at a time, and runs its tests; fails below 90 % noticed; SEED= repeats a sample
# make promises   measures the recovery times of docs/promises.md on this machine, and prints that table
# make install    installs program, units and manual, as root; PREFIX=/usr/local SYSCONFDIR=/etc DESTDIR= PYTHON=/usr/bin/python3
# make uninstall  removes the installed files, except edited context files and the state
# make deb        builds the Debian package into build/deb; lintian checks it where it is installed; SUITE=trixie builds it in that suite
# make test-deb   installs, upgrades, downgrades and removes that package in a booted copy of SUITE=bookworm or trixie; root, minutes
# make rpm        builds the RPM package into build/rpm, with rpmbuild of any distribution
# make cockpit    puts the page for Cockpit into cockpit/dist, with a library that npm downloads; install, deb and rpm take it from there
# make test-cockpit  tests that page in headless Chromium on a booted systemd with Cockpit, as root: see docs/cockpit.md
# make completion  writes the completion of zmsvcctl for bash, zsh and fish from its table of verbs
# make manual     writes the sections of zmsvcctl(1) on verbs and options from the tables of verbs
# make options   writes the options of <service> into the schemas and the manual of context files, from core/service_options.py
# make docs       writes the documents and manual pages as HTML into build/docs, and checks their links; needs mandoc
# make pictures   runs docs/pictures/Context-Sensors.xml and draws what zmsvcctl then shows, for the README; needs graphviz
# make lock       renews the versions and hashes in packaging/locked that install uses; needs the network
# make clean      removes everything that the other targets made in this directory
#
# LIBRARIES=system uses the libraries of the distribution and nothing from PyPI, for `make test` and `make install` alike. An existing
# .venv stays as it is: `make clean` first.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
LIBRARIES ?= pypi

.PHONY: demo test quick test-on test-lowest all-tests bench bench-full bench-on bench-pages bench-forks bench-safety bench-record bench-scale check fuzz kills simulate chaos soak mutants promises cluster \
    deb test-deb rpm lock cockpit test-cockpit completion manual options docs pictures install uninstall clean unit user-unit install-program install-files
.DELETE_ON_ERROR:

# --- for developers: everything happens in .venv ------------------------------------------------------------------------------

VENV := .venv

ifeq ($(LIBRARIES),system)
venv_flags := --system-site-packages
# Without an index pip only checks that the installed libraries are new enough.
pip_install := -m pip install --quiet --no-index --no-build-isolation
test_package := .
else
# CONSTRAINTS= names a file of versions, for `make test`.
pip_install := -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
test_package := '.[test]'
endif

demo: $(VENV)/.runs
	@$(VENV)/bin/python scripts/demo.py

# Tests wait for other processes, so one more runs at once than there are cores. JOBS=0 runs them in pytest's own process.
JOBS := $(shell expr $$(nproc) + 1)
distributed = $(shell $(VENV)/bin/python -c 'import xdist' 2> /dev/null && echo --numprocesses=$(JOBS) --dist=loadgroup)

test: $(VENV)/.tests
	$(VENV)/bin/python -m pytest $(distributed) $(PYTEST_ARGS)
	@[ "$$(id -u)" = 0 ] || echo "make test: tests/boot was left out, because only root can boot a systemd"

quick: $(VENV)/.tests
	$(VENV)/bin/python -m pytest -q $(distributed) -k 'not mypy' $(if $(findstring tests/,$(PYTEST_ARGS)),,tests/core tests/house) $(PYTEST_ARGS)

test-on:
	@$(if $(SUITE),scripts/suite.py $(SUITE),echo "make test-on: which suite? SUITE=trixie, bookworm or forky" >&2; exit 2)

test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=tests/lowest.txt PYTHON='$(or $(PYTHON),python3.11)' \
	    PYTEST_ARGS='$(or $(PYTEST_ARGS),tests/core tests/host tests/live)'

# Other random examples and seeds in each run: see tests/chance.py.
all-tests fuzz kills simulate: export ZMSVC_EXPLORE := yes

all-tests: test test-lowest
	for suite in bookworm trixie forky; do $(MAKE) test-on SUITE=$$suite || exit; done
	$(MAKE) test-cockpit
	for suite in bookworm trixie; do $(MAKE) test-deb SUITE=$$suite || exit; done
	$(MAKE) fuzz
	$(MAKE) kills
	$(MAKE) simulate
	$(MAKE) chaos
	$(MAKE) soak
	$(MAKE) cluster

# Results go to bench. Managers that are not installed (s6, runit: apt-get install s6 runit) are left out, which the report says.
bench bench-full: $(VENV)/.bench
	PYTHONPATH=tests:tests/live:tests/boot $(VENV)/bin/python -m bench $(if $(filter bench-full,$@),--full) $(BENCH_ARGS)

# The suite has no other managers. The report goes to standard output.
bench-on:
	@$(if $(SUITE),,echo "make bench-on: which suite? SUITE=trixie, bookworm or forky" >&2; exit 2)
	@scripts/suite.py $(SUITE) env PYTHONPATH=.:tests:tests/live:tests/boot python3 -m bench --out /tmp/bench $(BENCH_ARGS)

bench-pages bench-forks bench-safety bench-record bench-scale: $(VENV)/.runs
	PYTHONPATH=tests:tests/live:tests/boot $(VENV)/bin/python -m $(subst -,.,$@) $(BENCH_ARGS)

completion: $(VENV)/.runs
	$(VENV)/bin/python scripts/completion.py

manual: $(VENV)/.runs
	$(VENV)/bin/python scripts/manual.py

options: $(VENV)/.runs
	$(VENV)/bin/python scripts/service_options.py
	$(VENV)/bin/python scripts/compact_schema.py

docs: $(VENV)/.docs
	@$(VENV)/bin/python scripts/docs.py

pictures: $(VENV)/.runs
	@$(VENV)/bin/python scripts/pictures.py

check: $(VENV)/.tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy --strict
	$(VENV)/bin/python -m pytest -q tests/house

$(VENV)/bin/python:
	@scripts/venv.sh $(venv_flags) $(VENV) $(PYTHON)

# The package is installed as a link to this directory, so only changed dependencies require another installation. The link is a path,
# because type checkers do not follow setuptools' alternative, a finder: https://github.com/pypa/setuptools/issues/3518
pip_editable := --config-settings editable_mode=compat --editable
$(VENV)/.runs: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(pip_install) $(pip_editable) .
	@touch $@

$(VENV)/.tests: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(pip_install) $(pip_editable) $(test_package)
	@touch $@ $(VENV)/.runs

# These take long, so they are not part of `make test`, which runs the same tests for a bounded time.
TIMES := 20
KILLS := 100
SEED :=
SECONDS := 600

fuzz: $(VENV)/.tests
	ZMSVC_FUZZ=$(TIMES) $(VENV)/bin/python -m pytest tests/fuzz $(PYTEST_ARGS)

kills: $(VENV)/.tests
	ZMSVC_KILLS=$(KILLS) ZMSVC_SEED=$(SEED) $(VENV)/bin/python -m pytest -s tests/faults/test_kills.py tests/faults/test_kills_on_hosts.py tests/faults/test_counted_messages.py $(PYTEST_ARGS)

simulate: $(VENV)/.tests
	ZMSVC_SIMULATIONS=10 ZMSVC_SEED=$(SEED) $(VENV)/bin/python -m pytest tests/live/test_simulate_random.py $(PYTEST_ARGS)

chaos: $(VENV)/.tests
	@PYTHONPATH=tests:tests/live:tests/faults $(VENV)/bin/python tests/faults/chaos.py $(if $(filter file,$(origin SECONDS)),60,$(SECONDS)) $(SEED)

soak: $(VENV)/.tests
	@PYTHONPATH=tests:tests/live $(VENV)/bin/python tests/faults/soak.py $(SECONDS)

SAMPLE := 40
mutants: $(VENV)/.tests
	@$(VENV)/bin/python scripts/mutants.py --sample $(SAMPLE) $(addprefix --seed ,$(SEED)) $(MUTANTS_ARGS)

RUNS := 1
cluster: $(VENV)/.tests
	@PYTHONPATH=tests:tests/boot:tests/cluster $(VENV)/bin/python tests/cluster/faults.py --runs $(RUNS) $(CLUSTER_ARGS)

promises: $(VENV)/.tests
	@PYTHONPATH=tests:tests/live $(VENV)/bin/python tests/faults/promises.py

$(VENV)/.docs: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(pip_install) $(pip_editable) '.[docs]'
	@touch $@ $(VENV)/.runs

$(VENV)/.bench: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(pip_install) $(pip_editable) '.[bench]'
	@touch $@ $(VENV)/.runs

# --- packages -----------------------------------------------------------------------------------------------------------------

# The directory of a Debian; with SUITE= that of scripts/suite.py.
SUITE_TREE = $(if $(SUITE),$(shell scripts/suite.py --where $(SUITE)))

deb:
	@$(if $(SUITE),scripts/suite.py --make $(SUITE))
	scripts/deb.sh $(addprefix --tree ,$(SUITE_TREE)) build/deb

test-deb: $(VENV)/.tests
	@$(if $(SUITE),scripts/suite.py --make $(SUITE))
	@tree='$(SUITE_TREE)'; [ -n "$$tree" ] || { echo 'make test-deb: which Debian? SUITE=bookworm or trixie, or SUITE_TREE=DIRECTORY' >&2; exit 2; }; \
	    ZMSVC_SUITE_TREE="$$tree" $(VENV)/bin/python -m pytest tests/packages $(PYTEST_ARGS)

rpm:
	scripts/rpm.sh build/rpm

lock:
	scripts/lock.sh build/lock

# --- the page for Cockpit: our files, and one of a library as npm has it ----------------------------------------------------------

page := $(wildcard cockpit/*.js cockpit/*.html cockpit/*.css) cockpit/manifest.json
dagre := cockpit/node_modules/@dagrejs/dagre/dist

# Under another name until it is complete, so that no installation takes a half of it.
cockpit: cockpit/node_modules/.libraries
	rm -rf cockpit/dist cockpit/dist.new
	install -d cockpit/dist.new
	install -m 644 -t cockpit/dist.new $(page) $(dagre)/dagre.esm.js.LEGAL.txt
	sed '/^\/\/# sourceMappingURL=/d' $(dagre)/dagre.esm.js > cockpit/dist.new/dagre.js
	mv cockpit/dist.new cockpit/dist
	@echo 'make cockpit: the page is in cockpit/dist; make install, deb and rpm take it from there'

npm_ci = command -v npm > /dev/null || { echo 'make: there is no npm, which downloads the libraries of the Cockpit page (Debian: apt-get install npm)' >&2; exit 1; }; \
    cd cockpit && npm ci --no-progress --loglevel=error
# Once there, the libraries of the tests stay.
tested := $(wildcard cockpit/node_modules/.tests)
cockpit/node_modules/.libraries: cockpit/package-lock.json
	@$(npm_ci) $(if $(tested),,--omit=dev)
	@touch $@ $(tested)

cockpit/node_modules/.tests: cockpit/package-lock.json
	@$(npm_ci)
	@touch $@ cockpit/node_modules/.libraries

test-cockpit: $(VENV)/.tests cockpit/node_modules/.tests
	$(MAKE) --no-print-directory cockpit
	ZMSVC_COCKPIT=yes $(VENV)/bin/python -m pytest tests/cockpit $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .venv-lowest build dist cockpit/dist cockpit/dist.new cockpit/node_modules zmsvc.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# --- for machines: everything goes to DESTDIR -----------------------------------------------------------------------------------

dest := $(abspath $(DESTDIR))
bindir := $(PREFIX)/bin
# systemd, sysusers, tmpfiles and the journal's catalog are looked for in /usr/local/lib as well as in /usr/lib.
libdir := $(PREFIX)/lib
unitdir := $(libdir)/systemd/system
userunitdir := $(libdir)/systemd/user
configdir := $(SYSCONFDIR)/zmsvc
program := $(libdir)/zmsvc

commands := zmsvcd zmsvcctl
configs := $(notdir $(wildcard etc/zmsvc/*.xml))
rotation := $(SYSCONFDIR)/logrotate.d/zmsvc

# The documents for users, in the same relative places as in the tree, so that their links work.
documents := $(addprefix docs/,access.md bus.md cluster.md cluster-context.xml cockpit.md contract.md debugging.md from-supervisor.md from-zmicroservices.md installation.md lifecycle.mmd metrics.md performance.md \
    promises.md scale.md services.md tutorial.md zmsvc-alerts.yml zmsvcctl.schema.json)
# The README is installed without its links to files that only the source has.
in_source := tests\/[^)]*|bench\/[^)]*|CONTRIBUTING\.md|docs\/(architecture|decisions)\.md
# zsh of Debian looks into vendor-completions and not into site-functions of /usr, which debian/rules says. fish looks into its own
# prefix, and into /usr/local only if XDG_DATA_DIRS is set, but always into /etc/fish.
zsh_functions := $(PREFIX)/share/zsh/site-functions
fish := $(if $(filter /usr,$(PREFIX)),/usr/share/fish/vendor_,$(SYSCONFDIR)/fish/)
fish_d := $(if $(filter /usr,$(PREFIX)),.d)
# FILE:DIRECTORY of each file that is only copied. uninstall uses the same list.
to = $(addsuffix :$(PREFIX)/$(1),$(wildcard $(2)))
copies := \
    $(call to,lib/systemd/system,$(wildcard units/*.target units/*.slice units/*.timer units/*.socket)) \
    $(call to,lib/sysusers.d,units/sysusers.d/zmsvc.conf) \
    $(call to,lib/tmpfiles.d,units/tmpfiles.d/zmsvc.conf) \
    $(call to,lib/systemd/catalog,zmsvc/data/zmsvc.catalog) \
    $(call to,share/xml/zmsvc,$(addprefix zmsvc/data/,context.rng context.rnc catalog.xml schemas.xml)) \
    $(call to,share/doc/zmsvc/drop-ins,units/drop-ins/*.conf) \
    $(call to,share/doc/zmsvc,README.md NEWS SECURITY.md) \
    $(call to,share/doc/zmsvc/docs,$(documents)) \
    $(call to,share/doc/zmsvc/docs/pictures,docs/pictures/*) \
    $(foreach n,1 5 7 8,$(call to,share/man/man$(n),zmsvc/data/man/*.$(n))) \
    $(call to,share/cockpit/zmsvc,$(wildcard cockpit/dist/*)) \
    $(call to,share/bash-completion/completions,zmsvc/data/completion/*.bash) \
    $(addsuffix :$(SYSCONFDIR)/bash_completion.d,zmsvc/data/completion/units/zmsvc.bash) \
    $(addsuffix :$(zsh_functions),$(wildcard zmsvc/data/completion/_* zmsvc/data/completion/units/_*)) \
    $(addsuffix :$(fish)completions$(fish_d),$(wildcard zmsvc/data/completion/*.fish)) \
    $(addsuffix :$(fish)conf.d,zmsvc/data/completion/units/zmsvc.fish)
# The agent of a cluster. Pacemaker looks for agents in this directory alone, whatever PREFIX is.
agent := /usr/lib/ocf/resource.d/zmsvc/context
# The services of the system are templates, in which the names of directories are filled in.
services := $(notdir $(basename $(wildcard units/*.service.in)))
filled_in = sed 's|@bindir@|$(bindir)|g; s|@sysconfdir@|$(SYSCONFDIR)|g'
copied := $(foreach copy,$(copies),$(lastword $(subst :, ,$(copy)))/$(notdir $(firstword $(subst :, ,$(copy)))))

install: install-program install-files
ifeq ($(dest),)
	systemd-sysusers zmsvc.conf
	systemd-tmpfiles --create zmsvc.conf
	journalctl --update-catalog
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
endif

# Each file that pip downloads has its hash in packaging/locked. There are wheels for the Pythons that scripts/lock.sh names. For
# another Python pip builds the same sources, with build tools that the sources choose, and make prints a note.
# The copy keeps leftovers of earlier builds in ./build out of the package. Files made under DESTDIR must not contain its path: scripts
# begin with the path of their Python, and compiled modules contain the path of their source. The umask of the installing user may
# deny other users to read.
# LIBRARIES=system: the distribution's libraries; pip only checks that they are new enough.
compiled := lxml,psutil,pyzmq
hashed = '$(dest)$(program)/bin/python' -I -m pip install --quiet --no-compile --require-hashes
define locked_libraries
$(if $(filter system,$(LIBRARIES)),,umask 022 && $(hashed) -r packaging/locked/build.txt
	umask 022 && { $(hashed) --no-build-isolation --use-pep517 --only-binary $(compiled) -r packaging/locked/libraries.txt || { \
	    echo 'make install: this Python has no wheels of $(compiled); pip builds them from source' >&2; \
	    $(hashed) -r packaging/locked/libraries.txt; }; })
endef
install-program:
	umask 022 && scripts/venv.sh --service $(venv_flags) '$(dest)$(program)' '$(or $(PYTHON),/usr/bin/python3)'
	$(locked_libraries)
	umask 022 && source=$$(mktemp -d) && trap 'rm -rf "$$source"' EXIT && \
	    cp -rL --parents setup.cfg pyproject.toml LICENSE SECURITY.md packaging/pypi.md zmsvc "$$source" && \
	    '$(dest)$(program)/bin/python' -I -m pip install --quiet --no-compile --no-index --no-build-isolation "$$source"
	umask 022 && '$(dest)$(program)/bin/python' -I -m compileall -q -f $(if $(dest),-s '$(dest)' -p /) '$(dest)$(program)/lib'
	$(if $(dest),grep -rlIF '$(dest)' '$(dest)$(program)/bin' '$(dest)$(program)/pyvenv.cfg' | xargs sed -i 's|$(dest)||g')
	install -d '$(dest)$(bindir)'
	for name in $(commands); do ln -sfn ../lib/zmsvc/bin/$$name '$(dest)$(bindir)'/$$name; done

install-files:
	@[ -e cockpit/dist/index.html ] || echo 'make install: without the page for Cockpit, because cockpit/dist is missing (make cockpit makes it)' >&2
	set -e; for copy in $(copies); do install -D -m 644 -t '$(dest)'"$${copy#*:}" "$${copy%%:*}"; done
	install -D -m 755 zmsvc/data/ocf/context '$(dest)$(agent)'
	sed -E -i 's/\[([^]]*)\]\(($(in_source))\)/\1/g' '$(dest)$(PREFIX)/share/doc/zmsvc/README.md'
	set -e; for name in $(services); do $(filled_in) units/$$name.in > '$(dest)$(unitdir)'/$$name; chmod 644 '$(dest)$(unitdir)'/$$name; done
	install -d '$(dest)$(userunitdir)' '$(dest)$(unitdir)/multi-user.target.wants' '$(dest)$(configdir)/services'
	$(MAKE) --silent --no-print-directory user-unit > '$(dest)$(userunitdir)/zmsvc@.service'
	chmod 644 '$(dest)$(userunitdir)/zmsvc@.service'
	ln -sfn ../zmsvc.target '$(dest)$(unitdir)/multi-user.target.wants/zmsvc.target'
	set -e; for name in $(configs); do \
	    [ -e '$(dest)$(configdir)'/$$name ] || install -m 644 etc/zmsvc/$$name '$(dest)$(configdir)'; done
	[ -e '$(dest)$(rotation)' ] || install -D -m 644 etc/logrotate.d/zmsvc '$(dest)$(rotation)'

# The units as they would be installed, on standard output.
unit user-unit: unit = units/$(if $(filter user-unit,$@),user/)zmsvc@.service.in
unit user-unit:
	@$(filled_in) $(unit)

# Files of the administrator stay: services in lib/zmsvc/services, edited context files, the state; so does the user who owns it.
uninstall:
ifeq ($(dest),)
	-[ ! -d /run/systemd/system ] || systemctl stop zmsvc.target 'zmsvc@*.service' 'zmsvc-host@*.service' 'zmsvc-metrics.*' 'zmsvc-exporter.*'
endif
	rm -f $(addprefix '$(dest)',$(copied)) $(addprefix '$(dest)$(bindir)'/,$(commands))
	rm -f '$(dest)$(agent)' $(addprefix '$(dest)$(unitdir)'/,$(services)) '$(dest)$(userunitdir)/zmsvc@.service' '$(dest)$(unitdir)/multi-user.target.wants/zmsvc.target'
	rm -rf $(addprefix '$(dest)$(program)'/,bin include lib lib64 share pyvenv.cfg)
	for name in $(configs); do ! cmp -s etc/zmsvc/$$name '$(dest)$(configdir)'/$$name || rm '$(dest)$(configdir)'/$$name; done
	! cmp -s etc/logrotate.d/zmsvc '$(dest)$(rotation)' || rm '$(dest)$(rotation)'
	rm -rf '$(dest)$(PREFIX)/share/cockpit/zmsvc'
	for left in '$(dest)$(dir $(agent))' '$(dest)$(PREFIX)/share/cockpit' '$(dest)/usr/lib/ocf/resource.d' '$(dest)/usr/lib/ocf' '$(dest)$(PREFIX)/share/xml/zmsvc' '$(dest)$(program)' '$(dest)$(configdir)/services' '$(dest)$(configdir)' \
	    '$(dest)$(PREFIX)/share/doc/zmsvc/drop-ins' '$(dest)$(PREFIX)/share/doc/zmsvc/docs/pictures' '$(dest)$(PREFIX)/share/doc/zmsvc/docs' '$(dest)$(PREFIX)/share/doc/zmsvc'; do \
	    [ ! -d $$left ] || rmdir --ignore-fail-on-non-empty $$left; done
ifeq ($(dest),)
	journalctl --update-catalog
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
endif
