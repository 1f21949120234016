# Every command of the project; `make` alone lists them.
#
# Each target makes the virtual environments that it needs. .venv holds an editable install of this
# tree. Each .venv-NAME holds the sdist, built with the compiler flags or the Python of that NAME, in
# a folder of pip's own: no build ever sees the products of another.

PYTHON ?= python3
# The Python whose debug build counts references.
PYTHON_DEBUG ?= $(firstword $(foreach p,python3-dbg python3.13d python3.12d python3.11d,\
    $(shell $p -c 'import sys; sys.gettotalrefcount; print(sys.executable)' 2>/dev/null)))
# For pytest: make test ARGS="tests/test_pool.py -k cancel".
ARGS ?=
# The number of jobs of `make soak`, or the seconds of `make fuzz`.
T ?=
# The Pythons of `make compat`: by default those of 3.12 to 3.15 that this machine has. `make cov`
# runs the tests on 3.13.
COMPAT ?= $(foreach v,3.12 3.13,$(if $(call find_python,$v),$v)) $(if $(wildcard $(NEWER)),3.14 3.15)
# Where the virtual environments are: this path alone, or followed by -NAME.
V ?= .venv

NEWER := ../shared/tools/newer-pythons
CORE := $(wildcard csrc/core/*.c)
BINDING := $(wildcard csrc/py/*.c tests/faults/*.c)
C_TESTS := $(wildcard tests/c/*.c)
BUILD_FILES := pyproject.toml setup.py $(wildcard csrc/*/*.[ch])
SDIST_FILES := $(BUILD_FILES) MANIFEST.in README.md \
    $(wildcard wsoffload/*.py* wsoffload/*/*.py wsoffload/*/*.h)

# A Python that runs, of pyenv's or from PATH, where a name may belong to a shim without a Python.
find_python = $(firstword $(foreach p,$(wildcard $(HOME)/.pyenv/versions/$1.*/bin/python) \
    python$1,$(shell $p -c 'import sys; print(sys.executable)' 2>/dev/null)))
PYTHON_3.12 = $(or $(call find_python,3.12),python3.12)
PYTHON_3.13 = $(or $(call find_python,3.13),python3.13)
PYTHON_3.14 = python3.14
PYTHON_3.15 = python3.15
# While 3.11 traces, exceptions can pass by the handlers of asyncio.timeout (python/cpython#106749).
PYTHON_cov = $(or $(call find_python,3.13),$(PYTHON))
PYTHON_refleaks = $(or $(PYTHON_DEBUG),python3-dbg)

# The sanitizers' runtimes are gcc's, so the build must be. WSO_DEBUG lets locks know their owners.
BUILD_asan = CC=gcc CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
    -fno-omit-frame-pointer -UNDEBUG -DWSO_DEBUG" LDFLAGS="-fsanitize=address,undefined"
# The dynamic linker allocates other models' thread-local variables late, which looks like a race.
BUILD_tsan = CC=gcc CFLAGS="-O1 -g -fsanitize=thread -fno-omit-frame-pointer \
    -ftls-model=initial-exec" LDFLAGS="-fsanitize=thread"
BUILD_refleaks = CFLAGS="-Og -g -UNDEBUG -DWSO_DEBUG"
# A stock Python leaks by design, and its own allocator would hide uses after free. Where it ends a
# thread by pthread_exit, the frames that it leaves stay poisoned, and the sanitizer's own clean-up of
# signal stacks on that thread would report itself.
RUN_asan = LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:use_sigaltstack=0:log_path=$(abspath $(REPORTS)-asan/asan) \
    UBSAN_OPTIONS=print_stacktrace=1:log_path=$(abspath $(REPORTS)-asan/ubsan)
# The sanitizer's memory layout needs addresses that are not too random, where we may ask for that.
# A process may end while a job still runs, and that thread is no leak.
RUN_tsan = LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" \
    TSAN_OPTIONS=die_after_fork=0:report_thread_leaks=0:second_deadlock_stack=1:log_path=$(abspath $(REPORTS)-tsan/tsan) \
    $(shell setarch -R true 2>/dev/null && echo setarch -R)
RUN_refleaks = PYTHONPATH=$(CURDIR)/tests

# All tests are for `make test`. Elsewhere: of those that stall a process for real only the essential ones,
# and no random scripts and streams.
FEWER := -m "not stalls or essential" --ignore=test_frame.py --ignore=test_transport_scripts.py

# The tests run in tests/, where "wsoffload" can only mean what the environment has installed.
# $1: the environment, $2: variables, $3: options of pytest
pytest = cd tests && env $2 $(abspath $1)/bin/pytest -c ../pyproject.toml --rootdir .. $3 \
    $(patsubst tests/%,%,$(ARGS))

# Each process leaves its report in a file: pytest would swallow it, and a test may kill the process.
# $1: the sanitizers
REPORTS := build/reports
sanitized = rm -rf $(REPORTS)-$1 && mkdir -p $(REPORTS)-$1 && ($(call pytest,$V-$1,$(RUN_$1),$(FEWER))); \
    status=$$?; ! cat $(REPORTS)-$1/* 2>/dev/null && exit $$status

.DELETE_ON_ERROR:
.PRECIOUS: $V-%/.installed
.PHONY: help demo test ctest asan tsan fuzz refleaks bench soak lint types cov ccov docs examples \
    compat sdist check clean

help: ## list the commands
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

demo: .venv/.installed .venv/.demo ## one server with wsoffload and one without, side by side
	.venv/bin/python -m wsoffload demo

test: .venv/.installed .venv/.test .venv/.demo ## the tests (ARGS="..." goes to pytest)
	$(call pytest,.venv)

ctest: ## the C core's own tests, without Python
	$(MAKE) -C tests/c run faults

asan: $V-asan/.installed ## all tests under AddressSanitizer and UBSan
	$(MAKE) -C tests/c asan
	$(call sanitized,asan)

tsan: $V-tsan/.installed ## all tests under ThreadSanitizer
	$(MAKE) -C tests/c tsan
	$(call sanitized,tsan)

fuzz: ## libFuzzer on what reads the network, for T seconds (60); needs clang
	$(MAKE) -C tests/c fuzz T=$(or $T,60)

# uvloop's wheel was built for other Pythons: what it does to references is not counted right. The tests
# of transports and the adapter cannot be counted yet: collecting them makes each run of any test grow by
# the same few references. One test leaves by design what the process counts for each reason.
UNCOUNTED := $(patsubst %,--ignore=test_%.py,frame transport transport_guard transport_scripts websockets)
refleaks: $V-refleaks/.installed ## each test 3 + 3 times on a debug Python, counting references
	$V-refleaks/bin/pip uninstall -qq -y uvloop
	$(call pytest,$V-refleaks,$(RUN_refleaks),-p refhunt --refhunt 3:3 -m "not stalls" \
	    $(UNCOUNTED) -k "not uvloop and not warned_of_once")

compat: $(addprefix compat-,$(COMPAT)) ## the tests on the other Pythons that are here (COMPAT="3.12 3.13")

compat-3.12 compat-3.13: compat-%: $V-%/.installed
	$(call pytest,$V-$*,,$(FEWER))

# In a root of its own, where a folder of another checkout may be installed: so it is built anew.
compat-3.14 compat-3.15: compat-%: dist/.sdist
	$(NEWER) $* . -- make V=/opt/venv-wsoffload -W dist/.sdist ARGS='$(ARGS)' inside-$*

inside-%: $V-%/.installed
	$(call pytest,$V-$*,,$(FEWER))

bench: .venv/.installed .venv/.bench ## the figures, against the other ways to leave the loop
	.venv/bin/python -m wsoffload bench

soak: .venv/.installed .venv/.test ## T jobs (10 million) from many threads and loops, with cancels
	.venv/bin/python benchmarks/soak.py $(or $T,10000000)

lint: .venv/.lint ## ruff; every C file with gcc and clang, warnings as errors
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(call compile,gcc $(CORE_FLAGS),$(CORE) $(C_TESTS))
	$(call compile,gcc $(PYTHON_FLAGS),$(BINDING))
	$(call compile,clang -Wthread-safety $(CORE_FLAGS),$(CORE) $(C_TESTS))
	$(call compile,clang -Wthread-safety $(PYTHON_FLAGS),$(BINDING))

# $1: the compiler and its own flags, $2: files
compile = @for file in $2; do echo "$(firstword $1) $$file"; \
    $1 -std=c11 -O2 -Wall -Wextra -Werror -Wstrict-prototypes -D_GNU_SOURCE=1 -pthread \
    -fvisibility=hidden -Icsrc/core -c $$file -o /dev/null || exit 1; done
CORE_FLAGS := -Wmissing-prototypes
PYTHON_FLAGS = -Icsrc/py -isystem $(shell .venv/bin/python -c \
    'import sysconfig; print(sysconfig.get_path("include"))')

types: .venv/.installed .venv/.lint .venv/.test .venv/.demo ## mypy --strict, and the stubs against the extension
	.venv/bin/mypy
	.venv/bin/python -m mypy.stubtest wsoffload._core

cov: $V-cov/.installed $V-cov/.extras ## the tests; every branch of the Python code must be reached
	rm -f .coverage .coverage.*
	cd tests && ../$V-cov/bin/coverage run --rcfile ../pyproject.toml --data-file ../.coverage \
	    -m pytest -c ../pyproject.toml --rootdir .. $(FEWER) --ignore=test_transport.py
	$V-cov/bin/coverage combine -q
	$V-cov/bin/coverage report

# What the demo and the benchmarks import must be there for their branches to be reached.
$V-cov/.extras: $V-cov/.installed
	$V-cov/bin/pip install -qq 'wsoffload[demo,bench]'
	touch $@

ccov: ## the core's tests; every branch must be reached or have its reason
	$(MAKE) -C tests/c cov

docs: .venv/.installed .venv/.docs ## the documentation, warnings as errors
	.venv/bin/sphinx-build -q -W --keep-going -b html docs docs/_build/html

examples: .venv/.installed .venv/.test .venv/.demo ## run the examples
	cd tests && ../.venv/bin/pytest -c ../pyproject.toml --rootdir .. test_examples.py

sdist: .venv/.build ## build the sdist and try it in an empty environment
	.ci/sdist $(PYTHON)

check: lint types ctest ccov fuzz test cov docs sdist asan tsan refleaks compat ## all that CI checks
	$(MAKE) demo

clean: ## remove what these commands have made
	rm -rf $V $V-* build dist docs/_build *.egg-info wsoffload/*.so .coverage .coverage.*
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	$(MAKE) -C tests/c clean

# What the targets above have in common.

.venv/.base: pyproject.toml
	test -x .venv/bin/python || $(PYTHON) -m venv --upgrade-deps .venv
	touch $@

.venv/.build .venv/.test .venv/.lint .venv/.docs: .venv/.%: .venv/.base
	.venv/bin/pip install -qq --group $*
	touch $@

.venv/.installed: $(BUILD_FILES) .venv/.build
	WSOFFLOAD_DEV=1 .venv/bin/pip install -qq --no-deps --no-build-isolation -e .
	touch $@

# The package is there already, so that these bring only what its extra names.
.venv/.demo .venv/.bench: .venv/.%: .venv/.base | .venv/.installed
	.venv/bin/pip install -qq 'wsoffload[$*]'
	touch $@

dist/.sdist: $(SDIST_FILES) | .venv/.build
	rm -rf dist
	.venv/bin/python -m build -q --sdist --no-isolation
	touch $@

# A debug Python would print every warning about pip's own files.
$V-%/.installed: dist/.sdist
	test -x $V-$*/bin/python || $(or $(PYTHON_$*),$(PYTHON)) -m venv --upgrade-deps $V-$*
	PYTHONWARNINGS=ignore $V-$*/bin/pip install -qq --group build --group test
	$(BUILD_$*) WSOFFLOAD_DEV=1 PYTHONWARNINGS=ignore $V-$*/bin/pip install -qq --no-cache-dir \
	    --no-deps --no-build-isolation --force-reinstall dist/wsoffload-*.tar.gz
	touch $@
