# make demo   set up, encode and decode the sample photo, show sizes and times
# make test   set up, run the tests with the coverage gates
# make help   all targets

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
DEMO := demo-out
KAITAI := .cache/ksc/node_modules/kaitai-struct-compiler

.PHONY: help demo test test-slow check format vectors sample man train-lite train-lite-gpu train-bk-sdm \
	 kodak kodak-bk-sdm benchmark fuzz attacks faults audit clean

help:
	@sed -n 's/^# \(make .*   .*\)/\1/p' Makefile
	@echo "also: test-slow check format vectors sample man train-lite train-lite-gpu" \
		"train-bk-sdm kodak kodak-bk-sdm benchmark fuzz attacks faults audit clean"

$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --editable '.[dev,bench]'
	@touch $@

# The Kaitai Struct compiler comes from npm, node itself from a Python package.
$(KAITAI): $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm install --silent --no-fund --no-audit \
		--prefix .cache/ksc kaitai-struct-compiler@0.11.0 js-yaml@4
	@touch $@

demo: $(VENV)/.core
	@mkdir -p $(DEMO)
	@cp tests/samples/lake.png $(DEMO)/photo.png
	$(BIN)/bkcodec encode $(DEMO)/photo.png -o $(DEMO)/q20.bkc -q 20 -f
	$(BIN)/bkcodec encode $(DEMO)/photo.png -o $(DEMO)/q60.bkc -q 60 -f
	$(BIN)/bkcodec encode $(DEMO)/photo.png -o $(DEMO)/4k.bkc --target-size 4k -f
	$(BIN)/bkcodec decode $(DEMO)/q20.bkc $(DEMO)/q60.bkc $(DEMO)/4k.bkc -o $(DEMO)/ -f
	$(BIN)/bkcodec info $(DEMO)/q20.bkc
	@ls -l $(DEMO)
	@echo "Compare $(DEMO)/photo.png with $(DEMO)/q20.png, q60.png and 4k.png."

test: $(VENV)/.dev $(KAITAI)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" \
		--cov --cov-report=term
	$(BIN)/python -m coverage report --fail-under=100 \
		--include='bkcodec/container.py,bkcodec/metadata.py,bkcodec/options.py,bkcodec/prior/*.py'

# The large engines of data, for test-slow. Newer versions of pyarrow need NumPy 2, which compressai
# does not take.
$(VENV)/.engines: $(VENV)/.dev
	$(PIP) --editable '.[datasets,ray]' 'pyarrow<24'
	@touch $@

test-slow: $(VENV)/.engines $(KAITAI)
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

vectors: $(VENV)/.core
	$(BIN)/python scripts/make_vectors.py

sample: $(VENV)/.core
	$(BIN)/python scripts/make_sample.py tests/samples/lake.png

# The man pages, to look at: man -l man/bkcodec.1. A wheel has its own (hatch_build.py).
man: $(VENV)/.core
	$(PIP) click-man
	$(BIN)/python scripts/man_pages.py man

# Training a bundle like the shipped lite, in the stages of scripts/lite.toml, and going on with it at
# any time: make train-lite DATA=photos VAL=held-out-photos LPIPS=weights-file [PROCESSES=2]
# [UNTIL=stage] [MORE="--max-steps 9"]. The bundle is then RUN/texture.safetensors. See docs/training.md.
RUN ?= runs/lite
PROCESSES ?= 1
PLAN ?= scripts/lite.toml
train-lite: $(VENV)/.dev
	$(BIN)/python scripts/train_lite.py $(PLAN) $(RUN) --data $(DATA) --val $(VAL) \
		$(if $(LPIPS),--lpips $(LPIPS)) $(if $(UNTIL),--until $(UNTIL)) \
		--processes $(PROCESSES) -- $(MORE)

# The same in half an hour on a large GPU.
train-lite-gpu:
	$(MAKE) train-lite PLAN=scripts/lite-gpu.toml

# Training a bundle like the shipped bk-sdm: make train-bk-sdm DATA=photos VAL=held-out-photos
# VAE=directory LPIPS=weights-file; see docs/bk-sdm.md.
SD_RUN ?= runs/bk-sdm
SD = $(BIN)/bkcodec train --data $(DATA) --val $(VAL) --vae $(VAE) --pretrained-vae
SD_EXPORT = $(BIN)/bkcodec train --data $(DATA) --vae $(VAE) -o weights/bk-sdm.safetensors \
	--name bk-sdm --data-note docs/training-photos.md
SD_LATENTS = --latents $(SD_RUN)/latents.safetensors --context-phases 4 --batch-size 8 --lr 1e-3
train-bk-sdm: $(VENV)/.dev
	$(SD) $(SD_LATENTS) -o $(SD_RUN) --precision bf16 --max-minutes 50
	$(SD) $(SD_LATENTS) -o $(SD_RUN)-prior --phase prior --init-from $(SD_RUN) --max-minutes 3
	$(SD_EXPORT) --export $(SD_RUN)-prior
	$(SD) -o $(SD_RUN)-texture --phase texture --init-from weights/bk-sdm.safetensors \
		--lpips $(LPIPS) --lpips-weight 2 --adversarial-weight 0.03 --lr 5e-4 --batch-size 2 \
		--image-size 192 --precision bf16 --max-minutes 25
	$(SD_EXPORT) --export $(SD_RUN)-texture

# The figures of docs/bk-sdm.md: make kodak-bk-sdm PHOTOS=folder VAE=directory LPIPS=weights-file
kodak-bk-sdm: $(VENV)/.dev
	$(BIN)/python scripts/figures/bk_sdm.py measure $(PHOTOS) $(VAE) $(LPIPS) runs/bk-sdm-kodak
	$(BIN)/python scripts/figures/bk_sdm.py table runs/bk-sdm-kodak

# All fuzz targets, each for so long; FUZZ=-runs=400000 for so often. What breaks one is kept in
# .cache/fuzz; its input belongs into tests/fuzz/corpus, with the fix.
FUZZ ?= -max_total_time=10
fuzz: $(VENV)/.dev
	$(PIP) --editable '.[fuzz]'
	for target in bundle container entropy info integers metadata pillow; do \
		mkdir -p .cache/fuzz/$$target && \
		$(BIN)/python -m tests.fuzz.run $$target $(FUZZ) -max_len=20000 -timeout=20 \
			-rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=.cache/fuzz/$$target- \
			.cache/fuzz/$$target tests/fuzz/corpus/$$target || exit 1; \
	done

# Attempts of abuse and accidents, with what came of them; docs/reliability.md has the table.
attacks: $(VENV)/.core
	$(BIN)/python -m tests.attacks

faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults

# Known vulnerabilities of everything that is installed; asks PyPI.
audit: $(VENV)/.dev
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --local --skip-editable

# The figures of docs/lite.md:
# make kodak PHOTOS=folder [LPIPS=weights-file] [MODELS="-m lite -m other.safetensors"]
MODELS ?= -m lite
comma := ,
kodak: $(VENV)/.dev
	$(BIN)/bkcodec bench $(PHOTOS) $(MODELS) -q 0,10,20,30,40,50,60,70,80,90,100 \
		--peers jpeg,webp,avif,avif-ssim --avif-speed 4 --range 0.06:0.7 --repetitions 1 \
		--metrics psnr,ms-ssim,ssimulacra2$(if $(LPIPS),$(comma)lpips-sq --lpips $(LPIPS)) -o runs/kodak

# The figures of docs/benchmark.md: make benchmark PHOTOS=folder
benchmark: $(VENV)/.dev
	$(PIP) --editable '.[peers]'
	$(BIN)/bkcodec bench $(PHOTOS) -o runs/benchmark --overlay docs/published/cool-chic-5.json
	$(BIN)/python scripts/figures/benchmark.py runs/benchmark

clean:
	rm -rf $(VENV) .cache $(DEMO) build dist man .coverage
