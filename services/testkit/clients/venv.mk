# A program from PyPI, in an environment of its own, exactly as requirements.txt says. Included by the Makefile of each.
.PHONY: setup build clean
build: .venv/made

setup:
	python3 -c "import ensurepip, venv" 2>/dev/null || ../../../../scripts/packages python3 python3-venv

.venv/made: requirements.txt
	rm -rf .venv
	python3 -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

clean:
	rm -rf .venv
