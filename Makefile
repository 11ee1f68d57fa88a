# `make run` serves here, `make demo` shows a failover, `make test` tests; each
# sets up what it needs.

.PHONY: run demo test test-all nginx check simulate bench bench-statements \
	bench-upkeep docs pins clean .venv .venv-test .venv-bench
.DEFAULT_GOAL := run

# To use a certain Python: make run PYTHON=/path/to/python3.13
PYTHON =
CANDIDATES = python3 python3.14 python3.13 python3.12 python3.11 python
OLD_ENOUGH = import sys; assert sys.version_info >= (3, 11); \
	print(sys.executable)

run: .venv
	@.venv/bin/stampman init
	@.venv/bin/stampman run

# A failover in this terminal, with providers that only pretend.
demo: .venv
	@.venv/bin/stampman demo

# All but the long tests: some minutes.
test: .venv-test
	.venv/bin/python -m pytest -m "not long" $(ARGS)

# What .ci/run runs.
test-all: .venv-test nginx
	.venv/bin/python -m pytest $(ARGS)

# For the tests of deploy/nginx.conf. RUNLEVEL: it is not to serve here.
nginx:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; \
	command -v nginx >/dev/null && exit 0; \
	test "$$(id -u)" = 0 && root= || root='sudo -n'; \
	echo 'Installing nginx, which tests need' && \
	$$root apt-get -qq update >&2 && \
	$$root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --no-install-recommends nginx >&2 || { \
		echo 'The tests of deploy/nginx.conf need nginx, and it could not' \
			'be installed. Install it by hand, so that "nginx" is found.' >&2; \
		exit 1; }

# Only what reads the source, not what runs it: seconds.
check: .venv-test
	.venv/bin/python -m pytest -q tests/test_sanity.py

# The real program under faults, in virtual time: `SEEDS=20000` for a night,
# `START=17 SEEDS=1 POLICY=hold` for one again, `STORE=postgres` on a server.
SEEDS = 2000
START = 0
POLICY = both
STORE = sqlite

simulate: .venv-test
	@cd tests && ../.venv/bin/python -m simulation --seeds $(SEEDS) \
		--start $(START) --policy $(POLICY) --store $(STORE)

# Ratios, as a table; nothing is asserted. Some minutes, on a quiet machine:
# `make bench ARGS="--only sends,latency --rounds 7"`, `ARGS=--help`.
bench: .venv-bench
	@.venv/bin/python -m bench $(ARGS)

# What each call and statement of a store costs as it fills.
bench-statements: .venv-bench
	@.venv/bin/python -m bench.statements $(ARGS)

# What giving up old messages, VACUUM and migrations do to those who send.
bench-upkeep: .venv-bench
	@.venv/bin/python -m bench.upkeep $(ARGS)

# Write docs/providers.md anew.
docs: .venv
	.venv/bin/python tests/provider_docs.py

# The stamp holds a sum of what is installed and where: a changed pin makes
# a fresh .venv, and nothing else does. Python is looked for from /, so that
# a .python-version here, meant for Heroku, does not hide the one there is.
.venv:
	@want=$$({ pwd; echo '$(PYTHON)'; cat setup.py requirements.txt; } | cksum); \
	test "$$want" = "$$(cat .venv/installed 2>/dev/null)" && exit 0; \
	for name in $(or $(PYTHON),$(CANDIDATES)); do \
		python=$$(cd / && $$name -c '$(OLD_ENOUGH)' 2>/dev/null) \
			&& break; \
	done; \
	test -n "$$python" || { \
		echo 'Stampman needs Python 3.11 or newer; none is found as' \
			'$(or $(PYTHON),$(CANDIDATES)).' \
			'Say where it is: make PYTHON=/path/to/python3' >&2; \
		exit 1; }; \
	echo "Installing into .venv with $$python" && \
	rm -rf .venv && "$$python" -m venv .venv && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.txt && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --editable . && \
	echo "$$want" > .venv/installed

.venv-test: .venv
	@want=$$(cksum < tests/requirements.txt); \
	test "$$want" = "$$(cat .venv/tested 2>/dev/null)" && exit 0; \
	echo 'Installing what the tests need' && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.txt -r tests/requirements.txt && \
	echo "$$want" > .venv/tested

.venv-bench: .venv-test
	@want=$$(cksum < bench/requirements.txt); \
	test "$$want" = "$$(cat .venv/benched 2>/dev/null)" && exit 0; \
	echo 'Installing what Stampman is measured against' && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.txt -r bench/requirements.txt && \
	echo "$$want" > .venv/benched

# Write the pins anew from the lists in setup.py; needs uv.
PIN = uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --no-emit-index-url
HEADER = '\# Pinned from setup.py by "make pins".'

pins: .venv
	@echo $(HEADER) > requirements.new
	$(PIN) setup.py >> requirements.new
	mv requirements.new requirements.txt
	@echo $(HEADER) > tests/requirements.new
	sed -n '/^\[test\]$$/,/^\[/{/^\[/!p;}' stampman.egg-info/requires.txt | \
		$(PIN) --constraints requirements.txt - >> tests/requirements.new
	mv tests/requirements.new tests/requirements.txt
	@echo $(HEADER) > bench/requirements.new
	sed -n '/^\[bench\]$$/,/^\[/{/^\[/!p;}' stampman.egg-info/requires.txt | \
		$(PIN) --constraints requirements.txt - >> bench/requirements.new
	mv bench/requirements.new bench/requirements.txt

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis \
		.import_linter_cache
	find stampman tests -name __pycache__ -type d -prune -exec rm -rf {} +
